"""What policies learn from: lessons are the source's own, resume exactly, and name the best actions."""

from dataclasses import fields, replace

import pytest
import torch

from algorithms.acting import follow, interact
from algorithms.bandit import UCB, Random
from algorithms.control import QLearning
from models.policy_sources import (
    DecisionPretraining,
    Distillation,
    Following,
    LawDistillation,
    Reinforcement,
    ShuffledRewards,
    mixed_laws,
    optimal_laws,
)
from tasks.bandits import BanditFamily, bandits, best_arms
from tasks.decision import DecisionTasks, optimal_values
from tasks.errors import ConfigError
from tasks.interaction import Step
from tasks.mdps import MDPFamily

ARMS, RING = BanditFamily(), MDPFamily("ring")
SOFT_UCB, SOFT_Q = UCB(), QLearning()


def test_distilled_laws_are_those_by_which_the_source_acted() -> None:
    history, laws = Distillation(ARMS, SOFT_UCB, 12, "law").lesson([0, 1], 3, 4, "cpu")
    torch.testing.assert_close(follow(SOFT_UCB, history).laws, laws, rtol=0, atol=1e-6)
    tasks = ARMS.draw([0, 1], "train", 3, 4)
    acted = interact(SOFT_UCB, tasks, 12, seeds=[0, 1], purpose="train/source", index=3)
    assert all(torch.equal(getattr(acted, f.name), getattr(history, f.name)) for f in fields(Step))
    again, actions = Distillation(ARMS, SOFT_UCB, 12).lesson([0, 1], 3, 4, "cpu")
    assert torch.equal(again.action, history.action)
    assert torch.equal(actions.argmax(-1), history.action)
    assert (actions.sum(-1) == 1).all()


@pytest.mark.parametrize("source", [Distillation(ARMS, SOFT_UCB, 5), DecisionPretraining(ARMS, 5)], ids=["AD", "DPT"])
def test_a_seeds_lesson_does_not_depend_on_other_seeds(source: Distillation | DecisionPretraining) -> None:
    (alone, target), (beside, targets) = (source.lesson(seeds, 2, 3, "cpu") for seeds in ([7], [1, 7]))
    assert torch.equal(alone.reward[0], beside.reward[1])
    assert torch.equal(target[0], targets[1])
    other, _ = source.lesson([7], 3, 3, "cpu")
    assert not torch.equal(other.reward, alone.reward)


def test_pretraining_names_the_best_arm_at_every_prefix() -> None:
    history, targets = DecisionPretraining(ARMS, 6).lesson([0], 0, 50, "cpu")
    best = best_arms(ARMS.draw([0], "train", 0, 50))
    assert (targets.argmax(-1) == best[..., None]).all()
    assert history.action.unique().tolist() == [0, 1, 2, 3, 4]


def test_pretraining_names_the_best_action_where_it_stands_and_shares_ties() -> None:
    history, targets = DecisionPretraining(RING, 20).lesson([0], 0, 8, "cpu")
    values = optimal_values(RING.draw([0], "train", 0, 8), 0.9)
    here = values.gather(-2, history.observation[..., None].expand(-1, -1, -1, values.shape[-1]))
    chosen = (targets * here).sum(-1)
    torch.testing.assert_close(chosen, here.amax(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(targets.sum(-1), torch.ones(1, 8, 20))
    tied = optimal_laws(bandits(torch.tensor([[[0.2, 0.7, 0.7]]])), 0.9)
    assert tied.tolist() == [[[[0.0, 0.5, 0.5]]]]


def test_contexts_mix_a_spread_law_with_one_action() -> None:
    """w is uniform on {0, .1, ..., 1}; the mean of every law is uniform, E max is between 1/A and one."""
    laws = mixed_laws([0], "test", 0, 20_000, 4)[0]
    torch.testing.assert_close(laws.sum(-1), torch.ones(20_000))
    assert (laws >= 0).all()
    torch.testing.assert_close(laws.mean(0), torch.full((4,), 0.25), rtol=0, atol=0.01)
    assert abs(float((laws.amax(-1) > 0.999999).float().mean()) - 1 / 11) < 0.01
    assert abs(float(laws.square().sum(-1).mean()) - _mean_square(4)) < 0.01


def _mean_square(actions: int) -> float:
    """E sum_a p_a^2 of the mixture: E (1-w)^2 2/(A+1) + E 2 w (1-w) / A + E w^2."""
    shares = [k / 10 for k in range(11)]
    terms = [(1 - w) ** 2 * 2 / (actions + 1) + 2 * w * (1 - w) / actions + w**2 for w in shares]
    return sum(terms) / 11


def test_what_cannot_be_taught_is_refused() -> None:
    hidden = replace(RING.draw([0], "train", 0, 2), observations=(0,) * 7)
    with pytest.raises(ConfigError, match="hide part of it"):
        optimal_laws(hidden, 0.9)
    with pytest.raises(ConfigError, match="did you mean 'action'"):
        Distillation(ARMS, SOFT_UCB, 5, "actions")


def test_tasks_to_act_in_are_fresh_in_every_step() -> None:
    source = Reinforcement(ARMS, 10)
    first, second = (source.tasks([0], index, 3, "cpu") for index in (0, 1))
    assert first.batch == (1, 3)
    means = [tasks.rewards for tasks in (first, second) if isinstance(tasks, DecisionTasks)]
    assert not torch.equal(*means)


def test_following_has_the_contexts_of_decision_pretraining_and_a_learners_laws_as_targets() -> None:
    source = Following(RING, SOFT_Q, Random(), 20)
    history, laws = source.lesson([0, 1], 2, 5, "cpu")
    same, _ = DecisionPretraining(RING, 20, Random()).lesson([0, 1], 2, 5, "cpu")
    for name in ("observation", "action", "reward", "next_observation", "done"):
        assert torch.equal(getattr(history, name), getattr(same, name))
    torch.testing.assert_close(laws, follow(SOFT_Q, history).laws, rtol=0, atol=0)
    own, _ = Distillation(RING, SOFT_Q, 20).lesson([0, 1], 2, 5, "cpu")
    assert not torch.equal(own.action, history.action)


def test_a_law_is_taught_on_histories_of_every_kind() -> None:
    source = LawDistillation(ARMS, SOFT_UCB, 40)
    history, laws = source.lesson([0, 1], 3, 30, "cpu")
    assert history.batch == (2, 30)
    torch.testing.assert_close(follow(SOFT_UCB, history).laws, laws, rtol=0, atol=1e-6)
    again, _ = source.lesson([1], 3, 30, "cpu")
    assert torch.equal(again.reward[0], history.reward[1])
    many, _ = source.lesson([0], 0, 900, "cpu")
    own = interact(SOFT_UCB, ARMS.draw([0], "train", 0, 1200).select(slice(0, 300)), 40, purpose="train/source")
    assert torch.equal(many.action[:, ::3], own.action)
    # who goes on doing the same, whatever comes of it, gets half-way what he got before, or else something new
    gains = [many.reward[:, kind::3].unflatten(-1, (2, 20)).mean(-1).diff(dim=-1).square().mean() for kind in (1, 2)]
    assert gains[1] > 2 * gains[0]


def test_shuffled_rewards_are_the_same_in_another_order_and_targets_stay() -> None:
    plain = LawDistillation(ARMS, SOFT_UCB, 12)
    (history, laws), (shuffled, targets) = (s.lesson([0, 1], 3, 6, "cpu") for s in (plain, ShuffledRewards(plain)))
    assert torch.equal(laws, targets)
    assert torch.equal(history.action, shuffled.action)
    assert torch.equal(history.reward.sort(-1).values, shuffled.reward.sort(-1).values)
    assert not torch.equal(history.reward, shuffled.reward)
    alone, _ = ShuffledRewards(plain).lesson([1], 3, 6, "cpu")
    assert torch.equal(alone.reward[0], shuffled.reward[1])
