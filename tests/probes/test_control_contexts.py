"""Contexts of decision problems: what differs between two of a pair, and what the planner makes of it."""

import pytest
import torch

from algorithms.acting import follow
from algorithms.planning import CertaintyEquivalence
from probes.control_contexts import KINDS, designed_walks, exchanged, moved, other_places
from tasks.arrival import OnArrival
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk

RING = OnArrival(MDPFamily("ring", n_states=5, slip=(0.0, 0.0)))


@pytest.fixture(scope="module")
def walk() -> Interaction:
    return random_walk(RING.draw([0], "test", 0, 40), 30, purpose="test/walk")


def test_every_third_context_is_of_a_kind_and_rewards_move_half_way() -> None:
    history = designed_walks(RING, 40, 30, "test")
    assert history.batch == (1, 90)
    place = torch.where(history.reward > 0, history.next_observation, -1)
    late = KINDS.index("moved")
    for kind in range(3):
        halves = [x[0, kind::3].amax(-1) for x in place.split(20, -1)]
        both = (halves[0] >= 0) & (halves[1] >= 0)
        assert both.sum() > 15
        assert bool((halves[0] != halves[1])[both].all() if kind == late else (halves[0] == halves[1])[both].all())
    uniform, skewed = (history.action[0, kind::3] for kind in (0, 1))
    assert (uniform == 0).double().mean(-1).std() < 0.12
    often = [(actions == 0).double().mean() for actions in (uniform, skewed)]
    assert all(0.35 < share < 0.65 for share in often)


def test_moved_rewards_are_those_of_the_other_place(walk: Interaction) -> None:
    to = other_places(walk, "test")
    assert bool((to != torch.arange(5)).all())
    other = moved(walk, to)
    torch.testing.assert_close(other.observation, walk.observation)
    goal = torch.where(walk.reward > 0, walk.next_observation, -1).amax(-1)
    for task in (goal[0] >= 0).nonzero()[:, 0].tolist():
        place = (to[0, task] == goal[0, task]).nonzero().item()
        expected = (walk.next_observation[0, task] == place).to(walk.reward)
        torch.testing.assert_close(other.reward[0, task], expected)


def test_exchanged_actions_exchange_the_planners_law_there_and_nowhere_else(walk: Interaction) -> None:
    planner = CertaintyEquivalence(temperature=0.2)
    asked = walk.observation[..., -1]
    other = exchanged(walk, asked)
    exact = walk.each(lambda x: x.double() if x.is_floating_point() else x)
    swapped = other.each(lambda x: x.double() if x.is_floating_point() else x)
    before, after = (follow(planner, history).laws for history in (exact, swapped))
    here = (walk.observation == asked[..., None])[..., None]
    torch.testing.assert_close(after, torch.where(here, before.flip(-1), before), atol=1e-10, rtol=0)
