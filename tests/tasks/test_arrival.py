"""Rewards on arrival: the same worth of every state, a move earlier."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from tasks.arrival import OnArrival
from tasks.decision import DecisionTasks, optimal_values
from tasks.errors import ConfigError
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

RING = MDPFamily("ring", n_states=7, slip=(0.25, 0.25))


def test_values_are_the_familys_a_move_earlier() -> None:
    """Paid on arrival, Q'(s, a) = E V(s'); paid where one stands, V(s) = R(s) + gamma max_a E V(s'), R of the state."""
    gamma = 0.9
    early, late = (family.draw([0], "test", 0, 20).to(torch.float64) for family in (OnArrival(RING), RING))
    expected = late.expected(optimal_values(late, gamma, 1e-13).amax(-1))
    torch.testing.assert_close(optimal_values(early, gamma, 1e-13), expected, atol=1e-10, rtol=0)


def test_rewards_of_actions_are_refused() -> None:
    class Different:
        def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
            tasks = RING.draw(seeds, purpose, index, n)
            return replace(tasks, rewards=tasks.rewards * torch.arange(2.0)[:, None])

    with pytest.raises(ConfigError, match="where they belong to states"):
        OnArrival(Different()).draw([0], "test", 0, 3)


def test_a_walk_is_paid_where_it_arrives() -> None:
    tasks = OnArrival(RING).draw([0], "test", 0, 30)
    walk = random_walk(tasks, 60, purpose="test/walk")
    goal = RING.draw([0], "test", 0, 30).mean_rewards.amax(-1).argmax(-1)
    assert walk.reward.sum() > 100
    torch.testing.assert_close(walk.reward, (walk.next_observation == goal[..., None]).to(walk.reward))
