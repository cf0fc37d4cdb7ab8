"""Targets of probes: each is what its name says of the steps before it, and of nothing later."""

import pytest
import torch

from algorithms.acting import follow
from algorithms.bandit import PosteriorMean
from algorithms.planning import CertaintyEquivalence
from probes.policy_targets import (
    GAMMA,
    PSEUDO_COUNT,
    CountedModel,
    bandit_base,
    control_base,
    control_targets,
    learner_targets,
)
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

TIMES = [3, 11, 19]


@pytest.fixture(scope="module")
def walk() -> Interaction:
    history = random_walk(MDPFamily("ring", n_states=5).draw([0], "test", 0, 6), 20, purpose="test/walk")
    return history.each(lambda x: x.double() if x.is_floating_point() else x)


def test_the_model_is_the_planners(walk: Interaction) -> None:
    """Its values are those by which certainty equivalence chooses, after as many sweeps."""
    model = CountedModel.of(walk, TIMES)
    for sweeps in (1, 4):
        learner = CertaintyEquivalence(n_sweeps=sweeps, gamma=GAMMA, pseudo_count=PSEUDO_COUNT)
        q = follow(learner, walk, internals=True).internals["q"][:, :, TIMES]
        torch.testing.assert_close(model.values(sweeps), q, atol=1e-10, rtol=0)
        here = q.gather(-2, walk.observation[:, :, TIMES, None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
        targets = control_targets(walk, TIMES)
        torch.testing.assert_close(targets[f"value {sweeps}"][..., 0], here.amax(-1), atol=1e-10, rtol=0)
        advantage = here[..., 1] - here[..., 0]
        torch.testing.assert_close(targets[f"advantage {sweeps}"][..., 0], advantage, atol=1e-10, rtol=0)


def test_successors_solve_their_bellman_equation(walk: Interaction) -> None:
    """M(s, a, .) = sum_s' That(s' | s, a) (1[s'] + gamma mean_b M(s', b, .)), asked in every state at once."""
    gamma = 0.9
    model = CountedModel.of(walk, TIMES)
    everywhere = [
        CountedModel(model.transitions, model.rewards, model.visits, torch.full_like(model.asked, s)).successors(gamma)
        for s in range(5)
    ]
    table = torch.stack(everywhere, -3)  # [..., states, actions, states]
    after = torch.eye(5, dtype=torch.float64) + gamma * table.mean(-2)
    expected = torch.einsum("...saz,...zy->...say", model.transitions, after)
    torch.testing.assert_close(table, expected, atol=1e-10, rtol=0)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(table, model.transitions)


def test_goal_is_where_the_last_reward_came(walk: Interaction) -> None:
    goal = control_targets(walk, TIMES)["goal"]
    for task in range(6):
        for i, t in enumerate(TIMES):
            rewarded = (walk.reward[0, task, :t] > 0).nonzero()[:, 0]
            expected = torch.zeros(5, dtype=torch.float64)
            if len(rewarded):
                expected[walk.next_observation[0, task, rewarded[-1]]] = 1
            assert (goal[0, task, i] == expected).all()


def test_nothing_later_matters(walk: Interaction) -> None:
    """Other actions and rewards from the asked step on change no target and no base."""
    t = TIMES[1]
    late = torch.arange(walk.n_steps) >= t
    other = Interaction(
        **{
            **vars(walk),
            "action": torch.where(late, 1 - walk.action, walk.action),
            "reward": torch.where(late, 7.0, walk.reward),
        }
    )
    for rows in (control_targets, control_base):
        given, changed = rows(walk, [t]), rows(other, [t])
        for name, value in given.items():
            torch.testing.assert_close(changed[name], value, msg=name)
            assert value.shape[:3] == (1, 6, 1)


def test_the_base_of_bandits_holds_the_posterior_mean_where_it_is_no_longer_linear_in_counts() -> None:
    history = random_walk(BanditFamily(n_arms=3).draw([0], "test", 0, 5), 20, purpose="test/walk")
    base = bandit_base(history, TIMES)
    target = learner_targets({"mean": (PosteriorMean(strength=2.0, prior_mean=0.5), "index")}, history, TIMES)["mean"]
    counts, sums = 20 * base["counts"], 20 * base["sums"]
    torch.testing.assert_close((sums + 1) / (counts + 2), target)
    torch.testing.assert_close(base["means"] * counts, sums)
