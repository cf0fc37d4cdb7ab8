"""Influence kernels have the closed forms that the learners' algebra gives them, for any context."""

import math
from dataclasses import replace

import pytest
import torch

from algorithms.acting_bank import acting_learner
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.influence import among_others, balanced_pulls, influence, law_after, on_own_arm, own_lags
from tasks.interaction import Interaction

SOBER = {"lapse": 0.0, "temperature": 0.5}


def contexts(pulls: int = 4, n_arms: int = 3) -> Interaction:
    history = balanced_pulls(n_arms, pulls, 6, "test")
    return history.each(lambda x: x.double() if x.is_floating_point() else x)


def kernel(name: str, history: Interaction, **constants: float) -> torch.Tensor:
    return influence(law_after(acting_learner(name, {**SOBER, **constants})), history)


def test_contexts_are_balanced_and_lags_count_later_pulls_of_the_same_arm() -> None:
    history = contexts()
    counts = torch.nn.functional.one_hot(history.action, 3).sum(-2)
    assert (counts == 4).all()
    lags = own_lags(history.action)
    assert lags[0, 0, -1] == 0
    assert torch.equal(lags.sort(-1).values, torch.arange(4).repeat_interleave(3).expand(1, 6, 12))
    assert 0.3 < history.reward.mean() < 0.7


@pytest.mark.parametrize("pulls", [2, 5])
@pytest.mark.parametrize(("name", "constants", "extra"), [("empirical-mean", {}, 0), ("posterior-mean", {}, 2)])
def test_means_weigh_all_rewards_of_their_own_arm_alike(
    pulls: int, name: str, constants: dict[str, float], extra: int
) -> None:
    """1 / ((n + k) T), whatever the age, and nothing to any other arm."""
    history = contexts(pulls)
    found = kernel(name, history, **constants)
    own = on_own_arm(found, history.action)
    torch.testing.assert_close(own, torch.full_like(own, 1 / (pulls + extra) / 0.5), atol=1e-10, rtol=0)
    assert among_others(found, history.action).max() < 1e-10


def test_a_constant_step_forgets_geometrically_in_pulls_of_the_same_arm() -> None:
    history = contexts()
    own = on_own_arm(kernel("constant-step", history, step_size=0.3), history.action)
    torch.testing.assert_close(own, 0.3 * 0.7 ** own_lags(history.action).double() / 0.5, atol=1e-10, rtol=0)


def test_forgetting_fades_with_every_later_pull() -> None:
    """alpha (1 - alpha)^own (1 - phi)^(others)"""
    history = contexts()
    own = on_own_arm(kernel("forgetting", history, step_size=0.3, forget=0.1), history.action)
    lag = own_lags(history.action).double()
    rest = torch.arange(history.n_steps).flip(0) - lag
    torch.testing.assert_close(own, 0.3 * 0.7**lag * 0.9**rest / 0.5, atol=1e-10, rtol=0)


def test_thompson_couples_other_arms_and_two_arms_have_no_others() -> None:
    history = contexts()
    thompson = influence(law_after(acting_learner("thompson")), history)
    assert among_others(thompson, history.action).mean() > 0.01
    assert (on_own_arm(thompson, history.action) > 0).all()
    pair = contexts(n_arms=2)
    assert among_others(influence(law_after(acting_learner("thompson")), pair), pair.action).max() == 0


def test_who_says_always_the_same_is_moved_by_nothing() -> None:
    assert not kernel_of_random().any()


def kernel_of_random() -> torch.Tensor:
    return influence(law_after(acting_learner("random")), contexts())


def test_of_a_policy_it_is_what_the_other_side_of_a_coin_does() -> None:
    config = PolicyConfig(n_observations=1, n_actions=3, n_ctx=13, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    policy = PolicyTransformer(config, initial_weights(config, [0, 1])).double()
    history = contexts()
    found = influence(law_after(policy), history)
    assert found.shape == (2, 6, 12, 3)
    for j in (0, 7, 11):
        sides = []
        for side in (1.0, 0.0):
            reward = history.reward.clone()
            reward[..., j] = side
            sides.append(law_after(policy)(replace(history, reward=reward)).log())
        torch.testing.assert_close(found[:, :, j], (sides[0] - sides[1]).detach(), atol=1e-10, rtol=0)


def test_a_step_has_an_influence_where_it_has_no_slope() -> None:
    """Win-stay-lose-shift: ln .9 - ln .1 more for the arm again, of the last reward alone."""
    history = contexts()
    found = influence(law_after(acting_learner("win-stay-lose-shift", {"stay": 0.9, "shift": 0.9})), history)
    own = on_own_arm(found, history.action)
    torch.testing.assert_close(own[..., -1], torch.full_like(own[..., -1], 2 * math.log(9)), atol=1e-10, rtol=0)
    assert not own[..., :-1].any()
