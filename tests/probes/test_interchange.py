"""Interchange: what is swapped arrives, what is not stays, and a planted policy moves by what its read-out sees."""

import pytest
import torch

from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from probes.interchange import (
    at_steps,
    interchanged_logits,
    policy_stream,
    probe_basis,
    query_logits,
    random_basis,
    way_gone,
    whole_memory,
    whole_query,
    within,
)
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily
from tasks.rollout import random_walk
from tasks.streams import normals

RING = MDPFamily("ring", n_states=5)
CONFIG = PolicyConfig(n_observations=5, n_actions=2, n_ctx=12, d_model=8, d_mlp=16, tokens="transition")


def double(history: Interaction) -> Interaction:
    return history.each(lambda x: x.double() if x.is_floating_point() else x)


@pytest.fixture(scope="module")
def policy() -> PolicyTransformer:
    return PolicyTransformer(CONFIG, {name: w.double() for name, w in initial_weights(CONFIG, [0, 1]).items()})


@pytest.fixture(scope="module")
def pair() -> tuple[Interaction, Interaction]:
    a, b = (random_walk(RING.draw([0], "test", i, 7), 12, purpose="test/walk", index=i) for i in range(2))
    return double(a), double(b)


def test_rows_are_tasks_and_steps(policy: PolicyTransformer, pair: tuple[Interaction, Interaction]) -> None:
    stream = policy_stream(policy, pair[0])
    assert stream.shape == (3, 2, 7, 12, 8)
    rows = at_steps(stream, [4, 9])
    assert rows.shape == (3, 14, 2, 8)
    torch.testing.assert_close(rows[1, 2 * 3 + 1, 1], stream[1, 1, 3, 9])


def test_everything_after_the_last_layer_is_the_other_context(
    policy: PolicyTransformer, pair: tuple[Interaction, Interaction]
) -> None:
    a, b = pair
    own, other, streams = query_logits(policy, a), query_logits(policy, b), policy_stream(policy, b)
    arrived = interchanged_logits(policy, a, streams[2], 2, whole_query)
    torch.testing.assert_close(arrived, other, atol=1e-10, rtol=0)
    unmoved = interchanged_logits(policy, a, streams[2], 2, whole_memory)
    torch.testing.assert_close(unmoved, own, atol=1e-10, rtol=0)
    early = interchanged_logits(policy, a, streams[1], 1, whole_query)
    assert (early - other).abs().max() > 1e-4
    everything = torch.eye(8, dtype=torch.float64).expand(2, 8, 8)
    torch.testing.assert_close(interchanged_logits(policy, a, streams[1], 1, within(everything)), early)


def test_a_swap_moves_its_subspace_and_nothing_across(
    policy: PolicyTransformer, pair: tuple[Interaction, Interaction]
) -> None:
    own, other = (policy_stream(policy, each)[1] for each in pair)
    basis = probe_basis(normals([0, 1], "coef", 0, 8, 3).double(), other[..., -1, :])
    edited = within(basis)(own, other)
    torch.testing.assert_close(edited[..., :-1, :], own[..., :-1, :])
    read = [x[..., -1, :] @ basis for x in (edited, other)]
    torch.testing.assert_close(*read, atol=1e-10, rtol=0)
    rest = torch.eye(8, dtype=torch.float64) - basis @ basis.mT
    torch.testing.assert_close(edited[..., -1, :] @ rest, own[..., -1, :] @ rest, atol=1e-10, rtol=0)


def test_directions_are_those_that_a_quantity_is_written_in_not_those_that_cancel_the_rest() -> None:
    """x = q e0 + m (e0 + e1): a probe reads q by e0 - e1, and activations vary with q along e0."""
    q, m = (normals([0], "parts", i, 5000, 1).double() for i in range(2))
    resid = q * torch.eye(4, dtype=torch.float64)[0] + m * torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    weights = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)[None, :, None]
    torch.testing.assert_close(resid @ weights, q)
    basis = probe_basis(weights, resid)
    assert basis[0, 0].abs() > 0.99
    random = random_basis(torch.ones(1, 4, 2), resid.float(), "test", 0)
    torch.testing.assert_close(random.mT @ random, torch.eye(2)[None], atol=1e-5, rtol=0)
    twice = probe_basis(torch.cat([weights, 2 * weights], -1), resid)
    assert twice.any(1).sum() == random_basis(twice, resid, "test", 0).any(1).sum() == 1
    assert random[:, 2:].abs().max() < 1e-5
    assert (random - random_basis(torch.zeros(1, 4, 2), resid.float(), "test", 1)).abs().max() > 0.01


def test_the_way_is_one_where_all_arrived_and_blind_to_a_common_rise() -> None:
    own, other = (normals([0, 1], "logits", i, 5, 3).double() for i in range(2))
    edits = torch.stack([other, own, own + 2.0, own + (other - own) / 4, 2 * own - other])
    gone, whole = way_gone(own, edits, other)
    expected = torch.tensor([1.0, 0.0, 0.0, 0.25, -1.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(gone.sum(-1) / whole.sum(-1), expected.expand(5, 2), atol=1e-10, rtol=0)
