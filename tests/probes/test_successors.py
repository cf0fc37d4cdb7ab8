"""Successor contrasts against enumeration; slots of networks that rewrite next features, and of one that does not."""

import torch

from models.constructions import td0
from models.linear import LinearTransformer
from probes.successors import slot_contrasts, squared_cosines, successor_contrasts
from tasks.action_values import Walks
from tasks.layout import transition_layout
from tasks.mdps import MDPFamily

CONTEXT = 400
FAMILY = MDPFamily("ring")
TASKS = FAMILY.draw([0], "test", 0, 3).to(torch.float64)


def test_successor_contrasts_are_those_of_the_walk() -> None:
    found = successor_contrasts(TASKS, 3)
    assert found.shape == (3, 1, 3, 7, 7)
    kernel = torch.zeros(7, 2, 7, dtype=torch.float64)
    for s in range(7):
        for a in range(2):
            for k in range(2):
                kernel[s, a, TASKS.successors[0, 1, s, a, k]] += TASKS.probabilities[0, 1, s, a, k]
    walk = kernel.mean(1)
    two_on = kernel @ walk
    torch.testing.assert_close(found[0, 0, 1], (kernel[:, 1] - kernel[:, 0]).mT)
    torch.testing.assert_close(found[1, 0, 1], (two_on[:, 1] - two_on[:, 0]).mT)
    assert found.sum(-2).abs().max() < 1e-12


def test_cosines_know_the_same_the_opposite_and_nothing() -> None:
    truth = successor_contrasts(TASKS, 2)
    written = torch.stack([truth[0], -3 * truth[1], 0 * truth[0]])
    found = squared_cosines(written, truth)[..., 0]
    assert found[0, 0] > 1 - 1e-12
    assert found[1, 1] > 1 - 1e-12
    assert (found[2] == 0).all()
    assert found[0, 1] < 0.9


def test_td_leaves_the_slot_empty_and_a_rewriting_network_fills_it_with_the_next_state() -> None:
    """P[next, next] copies the next pair of every key that matches the query, Q[features, features] matches pairs: what
    the query then holds is the empirical law of the next pair, times how often its own pair came."""
    layout = transition_layout(14, discount=0.9)
    walk = Walks(FAMILY).fresh_prompt([0], "test", 0, 3, CONTEXT, layout).to(torch.float64)
    plain = td0(torch.eye(14, dtype=torch.float64)[None, None], n_layers=1)
    assert (slot_contrasts(plain, walk.context, 2) == 0).all()
    P, Q = torch.zeros_like(plain.P), torch.zeros_like(plain.Q)
    layout.block(P, "next_features", "next_features").copy_(torch.eye(14))
    layout.block(Q, "features", "features").copy_(torch.eye(14))
    copying = LinearTransformer(plain.config, P.detach(), Q.detach())
    carried = squared_cosines(slot_contrasts(copying, walk.context, 2), successor_contrasts(TASKS, 2))[..., 0]
    assert carried.shape == (2, 2)
    assert (carried[0] == 0).all()
    assert carried[1, 0] > 0.8 > 0.3 > carried[1, 1]
