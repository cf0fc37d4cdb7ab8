"""Every bandit learner obeys its own rule, written here with loops; as sources they earn what the field reports."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithms.acting import follow, interact
from algorithms.acting_bank import ACTING, BANDIT, LINEAR_BANDIT, NESTING, acting_learner, richer
from algorithms.bandit import log_law, soft_law
from algorithms.bayes_adaptive import finite_horizon_index, two_armed_values
from algorithms.learner import constants
from tasks.bandits import BanditFamily, bandits
from tasks.errors import ConfigError
from tasks.interaction import Interaction

ARMS = 3
FEATURES = BanditFamily("linear", n_arms=ARMS).features
SETTINGS: dict[str, dict[str, Any]] = {name: {"features": FEATURES} for name in LINEAR_BANDIT}
SETTINGS["gittins"] = {"horizon": 12}
TESTED = [*BANDIT, *LINEAR_BANDIT]
TESTED.remove("bayes-optimal")  # two arms; see below


@pytest.fixture(scope="module")
def history() -> Interaction:
    """Float64 histories of 2 seeds and 3 tasks, 12 pulls at random."""
    tasks = BanditFamily(n_arms=ARMS).draw([0, 1], "test", 0, 3)
    made = interact(acting_learner("random"), tasks, 12, seeds=[0, 1], purpose="test")
    return made.each(lambda x: x.double() if x.is_floating_point() else x)


def indices(name: str, history: Interaction, **constants: Any) -> NDArray[np.float64]:
    trace = follow(acting_learner(name, constants, **SETTINGS.get(name, {})), history, internals=True)
    return trace.internals["index"].numpy()


def looped(history: Interaction, rule: Any) -> NDArray[np.float64]:
    """rule(arms, rewards) after every prefix of every history."""
    actions, rewards = history.action.numpy(), history.reward.numpy()
    prefixes = [
        [[rule(actions[s, t, :k], rewards[s, t, :k]) for k in range(history.n_steps)] for t in range(3)]
        for s in range(2)
    ]
    return np.array(prefixes)


def per_arm(rule: Any) -> Any:
    """rule(rewards of the arm, number of pulls of all) for each arm."""
    return lambda arms, rewards: [rule(rewards[arms == a], len(arms)) for a in range(ARMS)]


def test_soft_law() -> None:
    index = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    raised = np.exp(np.array([1.0, 2.0, 4.0]) / 0.5)
    assert soft_law(index, 0.5, 0.1).tolist() == pytest.approx(0.9 * raised / raised.sum() + 0.1 / 3, abs=1e-12)
    assert log_law(torch.tensor([0.0, 1.0])).isfinite().all()


@pytest.mark.parametrize(
    ("name", "constants", "rule"),
    [
        ("empirical-mean", {"initial": 0.7}, lambda r, t: r.mean() if len(r) else 0.7),
        ("posterior-mean", {"strength": 3.0, "prior_mean": 0.4}, lambda r, t: (r.sum() + 1.2) / (len(r) + 3)),
        ("ucb", {"bonus": 0.6}, lambda r, t: (r.mean() if len(r) else 1.0) + 0.6 / max(len(r), 1) ** 0.5),
        ("lcb", {"malus": 0.6}, lambda r, t: (r.mean() if len(r) else 0.0) - 0.6 / max(len(r), 1) ** 0.5),
        (
            "ucb1",
            {"bonus": 0.6},
            lambda r, t: (r.mean() if len(r) else 1.0) + 0.6 * (2 * np.log(max(t, 1)) / max(len(r), 1)) ** 0.5,
        ),
    ],
)
def test_counting_indices(name: str, constants: dict[str, float], rule: Any, history: Interaction) -> None:
    np.testing.assert_allclose(indices(name, history, **constants), looped(history, per_arm(rule)), atol=1e-10)


def test_discounted_ucb(history: Interaction) -> None:
    def rule(arms: NDArray[np.int64], rewards: NDArray[np.float64]) -> list[float]:
        fade = 0.8 ** np.arange(len(arms))[::-1]
        pulls = [fade[arms == a].sum() for a in range(ARMS)]
        means = [(fade * rewards)[arms == a].sum() / n if n else 1.0 for a, n in enumerate(pulls)]
        log = 2 * np.log(max(sum(pulls), 1))
        return [m + 0.5 * (log / (n or 1)) ** 0.5 for m, n in zip(means, pulls, strict=True)]

    found = indices("discounted-ucb", history, bonus=0.5, discount=0.8)
    np.testing.assert_allclose(found, looped(history, rule), atol=1e-10)


def test_incremental_values(history: Interaction) -> None:
    def rule(arms: NDArray[np.int64], rewards: NDArray[np.float64]) -> list[float]:
        q = np.full(ARMS, 0.4)
        for arm, reward in zip(arms, rewards, strict=True):
            others = np.arange(ARMS) != arm
            q[others] += 0.2 * (0.4 - q[others])
            q[arm] += 0.3 * (reward - q[arm])
        return list(q)

    found = indices("forgetting", history, step_size=0.3, forget=0.2, initial=0.4)
    np.testing.assert_allclose(found, looped(history, rule), atol=1e-10)


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("baseline", [0.0, 0.5, 1.0])
def test_gradient_bandit(baseline: float, history: Interaction) -> None:
    def rule(arms: NDArray[np.int64], rewards: NDArray[np.float64]) -> list[float]:
        h = np.zeros(ARMS)
        for t, (arm, reward) in enumerate(zip(arms, rewards, strict=True)):
            mean = rewards[:t].mean() if t else 0.0
            h += 0.4 * (reward - baseline * mean) * (np.eye(ARMS)[arm] - softmax(h))
        return list(h)

    np.testing.assert_allclose(
        indices("gradient-bandit", history, step_size=0.4, baseline=baseline), looped(history, rule), atol=1e-10
    )


def test_exp3(history: Interaction) -> None:
    def rule(arms: NDArray[np.int64], rewards: NDArray[np.float64]) -> list[float]:
        gains = np.zeros(ARMS)
        for arm, reward in zip(arms, rewards, strict=True):
            gains[arm] += reward / (0.9 * softmax(gains / 10)[arm] + 0.1 / ARMS)
        return list(gains)

    found = indices("exp3", history, temperature=10.0, lapse=0.1)
    np.testing.assert_allclose(found, looped(history, rule), atol=1e-10)


def test_linear_posterior(history: Interaction) -> None:
    phi = FEATURES.double().numpy()

    def rule(arms: NDArray[np.int64], rewards: NDArray[np.float64]) -> NDArray[np.float64]:
        inverse = np.linalg.inv(0.5 * np.eye(2) + phi[arms].T @ phi[arms])
        return phi @ inverse @ (phi[arms].T @ rewards) + 0.7 * np.sqrt(np.einsum("ai, ij, aj -> a", phi, inverse, phi))

    np.testing.assert_allclose(indices("lin-ucb", history, ridge=0.5, bonus=0.7), looped(history, rule), atol=1e-10)


def test_lin_thompson_is_the_share_of_posterior_draws(history: Interaction) -> None:
    """Where arms are orthogonal their means are independent, and the exact law is known."""
    told = {"features": torch.eye(ARMS), "n_draws": 4096}
    drawn = follow(acting_learner("lin-thompson", {"temperature": 1e-3, "lapse": 0.0, "noise": 0.5}, **told), history)
    prior = {"prior_mean": 0.0, "prior_sd": 0.5, "noise": 0.5, "lapse": 0.0}
    exact = follow(acting_learner("gaussian-thompson", prior), history)
    assert (drawn.laws - exact.laws).abs().max() < 0.03


def test_win_stay_lose_shift(history: Interaction) -> None:
    laws = follow(acting_learner("win-stay-lose-shift", {"stay": 0.9, "shift": 0.7}), history).laws
    assert torch.allclose(laws[..., 0, :], torch.tensor(1 / ARMS, dtype=torch.float64))
    again = laws[..., 1:, :].gather(-1, history.action[..., :-1, None])[..., 0]
    expected = torch.where(history.reward[..., :-1] == 1, 0.9, 0.3).double()
    assert torch.allclose(again, expected, atol=1e-10)


@pytest.mark.parametrize("explore", [5.0, 5.000000000000001], ids=["as given", "as a fit rounds it"])
def test_explore_then_commit(history: Interaction, explore: float) -> None:
    """Uniform before, and the law of the means of the exploration ever after."""
    known = {"temperature": 0.2, "lapse": 0.0}
    laws = follow(acting_learner("explore-then-commit", {**known, "explore": explore}), history).laws
    means = follow(acting_learner("empirical-mean", {**known, "initial": 0.0}), history).laws
    assert torch.allclose(laws[..., :5, :], torch.full_like(laws[..., :5, :], 1 / ARMS), atol=1e-10)
    assert torch.allclose(laws[..., 5:, :], means[..., 5:6, :].expand_as(laws[..., 5:, :]), atol=1e-10)


@pytest.mark.parametrize("name", TESTED)
def test_constants_carry_seeds_and_gradients(name: str, history: Interaction) -> None:
    """Constants [seeds, 1] are one learner per seed, and a law has a finite slope in every one of them."""
    told = SETTINGS.get(name, {})
    declared = constants(ACTING[name])
    values = {
        key: torch.tensor([[c.starts[0]], [c.starts[-1]]], dtype=torch.float64, requires_grad=True)
        for key, c in declared.items()
    }
    laws = follow(acting_learner(name, values, **told), history).laws
    assert torch.allclose(laws.sum(-1), torch.ones_like(laws[..., 0]), atol=1e-10)
    for seed in range(2):
        own = {key: value[seed, 0].item() for key, value in values.items()}
        alone = history.each(lambda x, seed=seed: x[seed : seed + 1])
        assert torch.allclose(follow(acting_learner(name, own, **told), alone).laws[0], laws[seed], atol=1e-10)
    if declared:
        slopes = torch.autograd.grad(laws.square().sum(), list(values.values()), allow_unused=True)
        assert all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize(
    ("simpler", "name"), [(a, b) for a, inner in NESTING.items() for b in inner if a in TESTED and b in TESTED]
)
def test_nesting(simpler: str, name: str, history: Interaction) -> None:
    told = SETTINGS.get(name, {})
    shared = dict.fromkeys(("temperature", "initial", "bonus", "step_size", "ridge"), 0.3)
    mine = {key: shared[key] for key in constants(ACTING[simpler]) if key in shared}
    renamed = {"initial": "prior_mean"} if name == "posterior-mean" else {}
    richer_one = {**{renamed.get(key, key): value for key, value in mine.items()}, **NESTING[simpler][name]}
    first = follow(acting_learner(simpler, mine, **SETTINGS.get(simpler, {})), history).laws
    second = follow(acting_learner(name, richer_one, **told), history).laws
    assert torch.allclose(first, second, atol=1e-10)
    assert name in richer(simpler)


def test_unknown_learner_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'thompson'"):
        acting_learner("thomson")


def test_two_armed_dynamic_programme() -> None:
    """One pull left: the posterior mean. Two left, nothing known: 1/2 + (2/3 . 1/2 + 1/2 . 1/2)."""
    q = two_armed_values(2)
    assert q[1, 0, 0, 0].tolist() == pytest.approx([2 / 3, 1 / 2], abs=1e-12)
    assert q[0, 0, 0, 0].tolist() == pytest.approx([1 / 2 + 1 / 3 + 1 / 4] * 2, abs=1e-12)


def test_best_policy_is_no_worse_than_its_index_and_needs_two_arms(history: Interaction) -> None:
    tasks = bandits(BanditFamily(n_arms=2).draw([0], "test/two", 0, 2000).mean_rewards[..., 0, :])
    exact = {"temperature": 1e-3, "lapse": 0.0}
    earned = {
        name: interact(acting_learner(name, exact, horizon=12), tasks, 12, purpose="test").reward.sum(-1).mean().item()
        for name in ("bayes-optimal", "gittins")
    }
    assert earned["bayes-optimal"] == pytest.approx(two_armed_values(12)[0, 0, 0, 0, 0].item(), abs=0.25)
    assert earned["gittins"] == pytest.approx(earned["bayes-optimal"], abs=0.1)
    with pytest.raises(ConfigError, match="2 arms"):
        follow(acting_learner("bayes-optimal"), history)


def test_finite_horizon_index() -> None:
    """One pull left: the mean. Two left from Beta(1, 1): 1/2 - x + 1/2 (2/3 - x) = 0 at x = 5/9."""
    index = finite_horizon_index(5)
    assert index[0, 2, 1].item() == pytest.approx(3 / 5, abs=1e-4)
    assert index[1, 0, 0].item() == pytest.approx(5 / 9, abs=1e-4)
    assert (index[1:, 0, 0] > index[:-1, 0, 0]).all()


@pytest.mark.parametrize(
    ("name", "constants", "published"),
    [
        ("thompson", {"lapse": 0.0}, 75.2),
        ("posterior-mean", {"temperature": 1e-3, "lapse": 0.0}, 76.2),
        ("ucb1", {"temperature": 1e-3, "lapse": 0.0, "bonus": 0.3 / 2**0.5, "initial": 2.0}, 77.5),
        ("gittins", {"temperature": 1e-3, "lapse": 0.0}, 78.3),
    ],
)
def test_sources_earn_what_is_reported(name: str, constants: dict[str, float], published: float) -> None:
    """5 coins, 100 pulls; the standard error of 400 tasks is about .8."""
    tasks = BanditFamily().draw([0], "test/reward", 0, 400)
    history = interact(acting_learner(name, constants), tasks, 100, purpose="test")
    assert history.reward.sum(-1).mean().item() == pytest.approx(published, abs=2.4)
