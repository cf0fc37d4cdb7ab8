"""Every learner in decision problems obeys its own update, written here with loops over tasks and steps."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from algorithms.acting import follow, interact, remember
from algorithms.acting_bank import CONTROL, acting_learner
from algorithms.learner import constants
from algorithms.planning import _gamma, planned
from algorithms.predictive_maps import distances
from tasks.decision import optimal_values
from tasks.gridworlds import GridFamily, moves
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily
from tasks.streams import normals, uniforms

STATES, ACTIONS, STEPS = 7, 3, 60
ALPHA, BETA, GAMMA = 0.3, 0.7, 0.8
KNOWN: dict[str, Any] = {"temperature": 0.5, "lapse": 0.1}
SHORT: dict[str, dict[str, Any]] = {
    "certainty-equivalence": {"n_sweeps": 3},
    "ucb-vi": {"n_sweeps": 3},
    "posterior-sampling": {"n_sweeps": 3, "n_draws": 4},
}

Table = NDArray[np.float64]
Walk = list[tuple[int, int, float, int, bool]]


@pytest.fixture(scope="module")
def history() -> Interaction:
    """Float64 episodes in binary trees, 2 seeds and 2 tasks: rewards at leaves that end them."""
    tasks = MDPFamily("tree", n_states=STATES).draw([0, 1], "test/control", 0, 2)
    made = interact(acting_learner("random"), tasks, STEPS, seeds=[0, 1], purpose="test")
    assert made.done.any()
    assert made.reward.sum() > 0
    return made.each(lambda x: x.double() if x.is_floating_point() else x)


def walk(history: Interaction, seed: int, task: int) -> Walk:
    columns = (history.observation, history.action, history.reward, history.next_observation, history.done)
    return list(zip(*(column[seed, task].tolist() for column in columns), strict=True))


def softmax(x: Table) -> Table:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def law(row: Table) -> Table:
    return 0.9 * softmax(row / 0.5) + 0.1 / ACTIONS


def monte_carlo(steps: Walk) -> Table:
    returns: dict[tuple[int, int], list[float]] = {}
    for i, (s, a, *_) in enumerate(steps):
        g = 0.0
        for age, (_, _, r, _, done) in enumerate(steps[i:]):
            g += GAMMA**age * r
            if done:
                break
        returns.setdefault((s, a), []).append(g)
    q = np.full((STATES, ACTIONS), 0.2)
    for pair, values in returns.items():
        q[pair] = np.mean(values)
    return q


def episodic(steps: Walk) -> Table:
    q, first = np.zeros((STATES, ACTIONS)), True
    seen: set[tuple[int, int]] = set()
    for i, (s, a, *_) in enumerate(steps):
        seen = set() if first else seen
        if (s, a) not in seen:
            g = 0.0
            for age, (_, _, r, _, done) in enumerate(steps[i:]):
                g += GAMMA**age * r
                if done:
                    break
            q[s, a] = max(q[s, a], g)
        seen.add((s, a))
        first = steps[i][4]
    return q


def q_learning(steps: Walk) -> Table:
    q = np.full((STATES, ACTIONS), 0.2)
    for s, a, r, after, _ in steps:
        q[s, a] += ALPHA * (r + GAMMA * q[after].max() - q[s, a])
    return q


def expected_sarsa(steps: Walk) -> Table:
    q = np.full((STATES, ACTIONS), 0.2)
    for s, a, r, after, _ in steps:
        q[s, a] += ALPHA * (r + GAMMA * law(q[after]) @ q[after] - q[s, a])
    return q


def sarsa(steps: Walk) -> Table:
    """The last step, unless it has ended an episode, waits for the next action."""
    q = np.full((STATES, ACTIONS), 0.2)
    for i, (s, a, r, after, done) in enumerate(steps):
        if done:
            q[s, a] += ALPHA * (r + GAMMA * law(q[after]) @ q[after] - q[s, a])
        elif i + 1 < len(steps):
            q[s, a] += ALPHA * (r + GAMMA * q[after, steps[i + 1][1]] - q[s, a])
    return q


def policy_gradient(steps: Walk) -> Table:
    theta, trace = np.zeros((STATES, ACTIONS)), np.zeros((STATES, ACTIONS))
    for s, a, r, _, done in steps:
        trace *= GAMMA
        trace[s] += np.eye(ACTIONS)[a] - softmax(theta[s])
        theta = theta + ALPHA * r * trace
        trace = np.zeros_like(trace) if done else trace
    return theta


def actor_critic(steps: Walk) -> Table:
    v, h = np.zeros(STATES), np.zeros((STATES, ACTIONS))
    for s, a, r, after, _ in steps:
        delta = r + GAMMA * v[after] - v[s]
        h[s] += BETA * delta * (np.eye(ACTIONS)[a] - softmax(h[s]))
        v[s] += ALPHA * delta
    return h


def certainty_equivalence(steps: Walk) -> Table:
    counts, rewards, acted = np.full((STATES, ACTIONS, STATES), 0.1), np.zeros((STATES, ACTIONS)), set()
    visits, ends = np.zeros((STATES, ACTIONS)), set()
    for s, a, r, after, done in steps:
        counts[s, a, after] += 1
        visits[s, a] += 1
        rewards[s, a] += r
        acted.add(s)
        ends |= {after} if done else set()
    q = np.zeros((STATES, ACTIONS))
    for _ in range(3):
        values = q.max(-1)
        values[list(ends - acted)] = 0
        q = rewards / np.maximum(visits, 1) + GAMMA * counts / counts.sum(-1, keepdims=True) @ values
    return q


def successor_representation(steps: Walk) -> Table:
    pairs = STATES * ACTIONS
    occupancy, rewards, visits = np.zeros((pairs, pairs)), np.zeros(pairs), np.zeros(pairs)
    q = np.zeros(pairs)
    for i, (s, a, r, after, done) in enumerate(steps):
        x = s * ACTIONS + a
        if i and not steps[i - 1][4]:
            before = steps[i - 1][0] * ACTIONS + steps[i - 1][1]
            occupancy[before] += ALPHA * (np.eye(pairs)[before] + GAMMA * occupancy[x] - occupancy[before])
        if done:
            ahead = np.zeros((STATES, ACTIONS))
            ahead[after] = law(q.reshape(STATES, ACTIONS)[after])
            occupancy[x] += ALPHA * (np.eye(pairs)[x] + GAMMA * ahead.ravel() @ occupancy - occupancy[x])
        rewards[x] += r
        visits[x] += 1
        q = occupancy @ (rewards / np.maximum(visits, 1))
    return q.reshape(STATES, ACTIONS)


@pytest.mark.parametrize(
    ("name", "constants", "key", "looped"),
    [
        ("monte-carlo-control", {"gamma": GAMMA, "initial": 0.2}, "q", monte_carlo),
        ("episodic-control", {"gamma": GAMMA}, "q", episodic),
        ("q-learning", {"gamma": GAMMA, "step_size": ALPHA, "initial": 0.2}, "q", q_learning),
        ("expected-sarsa", {"gamma": GAMMA, "step_size": ALPHA, "initial": 0.2}, "q", expected_sarsa),
        ("sarsa", {"gamma": GAMMA, "step_size": ALPHA, "initial": 0.2}, "q", sarsa),
        ("policy-gradient", {"gamma": GAMMA, "step_size": ALPHA}, "preferences", policy_gradient),
        (
            "actor-critic",
            {"gamma": GAMMA, "step_size": ALPHA, "actor_step": BETA},
            "preferences",
            actor_critic,
        ),
        ("certainty-equivalence", {"gamma": GAMMA, "pseudo_count": 0.1}, "q", certainty_equivalence),
        ("successor-representation", {"gamma": GAMMA, "step_size": ALPHA}, "q", successor_representation),
    ],
)
def test_updates(name: str, constants: dict[str, float], key: str, looped: Any, history: Interaction) -> None:
    known = {k: v for k, v in KNOWN.items() if name not in ("policy-gradient", "actor-critic") or k == "lapse"}
    learner = acting_learner(name, {**known, **constants}, **SHORT.get(name, {}))
    found = remember(learner, history)[key].numpy()
    for seed in range(2):
        for task in range(2):
            np.testing.assert_allclose(found[seed, task], looped(walk(history, seed, task)), atol=1e-10)


def test_td_errors_are_remembered(history: Interaction) -> None:
    """delta_t of Q-learning moves Q(s_t, a_t) by alpha delta_t, and nothing else."""
    learner = acting_learner("q-learning", {"step_size": ALPHA, "gamma": GAMMA})
    internals = follow(learner, history, internals=True).internals
    moved = internals["q"][:, :, 1:] - internals["q"][:, :, :-1]
    td_error = internals["td_error"][:, :, 1:]
    assert torch.allclose(moved.sum((-2, -1)), ALPHA * td_error, atol=1e-12)
    assert ((moved != 0).sum((-2, -1)) <= 1).all()


def test_planning_ends_at_the_optimal_values() -> None:
    """On the true model, many sweeps are value iteration."""
    tasks = MDPFamily("ring").draw([0], "test", 0, 3).to(torch.float64)
    kernel = torch.zeros(*tasks.mean_rewards.shape, tasks.n_states, dtype=torch.float64)
    kernel.scatter_add_(-1, tasks.successors, tasks.probabilities)
    q = planned(tasks.mean_rewards, kernel, torch.zeros(1, 3, 7, dtype=torch.bool), 0.9, 300)
    assert torch.allclose(q, optimal_values(tasks, 0.9), atol=1e-8)


def test_ucb_vi_without_bonus_is_certainty_equivalence(history: Interaction) -> None:
    known = {**KNOWN, "gamma": GAMMA, "pseudo_count": 0.1}
    first = follow(acting_learner("certainty-equivalence", known, n_sweeps=3), history).laws
    second = follow(acting_learner("ucb-vi", {**known, "bonus_size": 0.0}, n_sweeps=3), history).laws
    assert torch.allclose(first, second, atol=1e-10)


def test_posterior_of_rewards(history: Interaction) -> None:
    """With rewards seen almost without noise, all draws act softly on the mean reward of what was tried."""
    certain = {"prior_sd": 1.0, "noise": 1e-4, "temperature": 0.1, "gamma": 0.0}
    state = remember(acting_learner("posterior-sampling", certain, n_sweeps=1), history)
    visits = state["transitions"].sum(-1)
    tried = (visits > 0).all(-1)
    mean = state["rewards"] / visits.clamp(min=1)
    assert tried.any()
    assert torch.allclose(state["optimality"][tried], (mean / 0.1).softmax(-1)[tried], atol=1e-3)


@pytest.mark.parametrize("shape", [0.1, 1.0, 5.0, 50.0])
def test_gamma_draws(shape: float) -> None:
    """Mean and variance of a Gamma(shape) are shape; the law is followed to a few per cent (Kolmogorov distance)."""
    (normal,), (uniform,) = normals([0], "test", 0, 20000).double(), uniforms([0], "test", 1, 20000).double()
    draws = _gamma(torch.full_like(normal, shape), normal, uniform)
    assert draws.mean().item() == pytest.approx(shape, rel=0.05)
    assert draws.var().item() == pytest.approx(shape, rel=0.1)
    assert stats.kstest(draws.numpy(), stats.gamma(shape).cdf).statistic < 0.03


@pytest.mark.parametrize("name", CONTROL)
def test_constants_carry_seeds_and_gradients(name: str, history: Interaction) -> None:
    """Constants [seeds, 1] are one learner per seed, and a law has a finite slope in every one of them."""
    declared = constants(CONTROL[name])
    values = {
        key: torch.tensor([[c.starts[0]], [c.starts[-1]]], dtype=torch.float64, requires_grad=True)
        for key, c in declared.items()
    }
    short = history.each(lambda x: x[..., :20])
    laws = follow(acting_learner(name, values, **SHORT.get(name, {})), short).laws
    assert torch.allclose(laws.sum(-1), torch.ones_like(laws[..., 0]), atol=1e-10)
    for seed in range(2):
        own = {key: value[seed, 0].item() for key, value in values.items()}
        alone = short.each(lambda x, seed=seed: x[seed : seed + 1])
        found = follow(acting_learner(name, own, **SHORT.get(name, {})), alone).laws[0]
        assert torch.allclose(found, laws[seed], atol=1e-8)
    if declared:
        slopes = torch.autograd.grad(laws.square().sum(), list(values.values()), allow_unused=True)
        assert all(slope is None or slope.isfinite().all() for slope in slopes)


def test_distances_are_those_of_the_grid() -> None:
    """Manhattan, as nothing stands in the way."""
    cell = torch.arange(16)
    rows, columns = cell // 4, cell % 4
    expected = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    assert torch.equal(distances(moves(4)), expected)


def test_goal_inference_searches_and_then_goes_straight() -> None:
    """Every cell is asked once at most; after the first reward the goal is reached by the shortest way."""
    room = GridFamily("dark-room", size=4, horizon=16)
    tasks = room.draw([0], "test", 0, 16)
    exact = {"temperature": 1e-3, "lapse": 0.0}
    history = interact(acting_learner("goal-inference", exact, moves=moves(4)), tasks, 48, purpose="test")
    rewards = history.reward.unflatten(-1, (3, 16)).sum(-1)
    goals = room.goals([0], "test", 0, 16)[..., 0]
    far = distances(moves(4))[room.size // 2 * (room.size + 1), goals]
    known = rewards[..., 0] > 0
    assert known.float().mean() > 0.5
    assert torch.equal(rewards[..., 2][known], (16 - far.clamp(min=1) + 1)[known].float())


def test_sources_learn() -> None:
    """On rings, chance earns 1/7 a step; learners that bootstrap earn more than twice that in the end."""
    tasks = MDPFamily("ring").draw([0], "test/ring", 0, 50)
    for name in ("sarsa", "q-learning"):
        history = interact(acting_learner(name), tasks, 300, purpose="test")
        assert history.reward[..., 150:].mean() > 2 / 7
