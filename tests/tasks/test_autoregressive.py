"""Autoregressive sequences: W keeps the norm and commutes where it should, and prompts hold one state after another."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from tasks.autoregressive import KINDS, AutoregressiveFamily
from tasks.errors import ConfigError
from tasks.layout import Prompt, state_layout

D = 4


def family(kind: str, **settings) -> AutoregressiveFamily:
    return AutoregressiveFamily(D, kind, **settings)


def operators(kind: str, n: int = 20, **settings) -> Tensor:
    return family(kind, **settings).operators([0, 1], "test", 0, n)


def prompt(kind: str, n: int = 20, length: int = 12, **settings) -> Prompt:
    asked = family(kind, **settings)
    return asked.fresh_prompt([0, 1], "test", 0, n, length, asked.layout)


@pytest.mark.parametrize("kind", KINDS)
class TestOperators:
    def test_are_unitary(self, kind: str) -> None:
        W = operators(kind)
        identity = torch.eye(D, dtype=W.dtype).expand_as(W)
        torch.testing.assert_close(W @ W.mH, identity, atol=1e-12, rtol=0)
        assert W.is_complex() == (kind == "unitary")

    def test_commute_unless_drawn_by_haars_law(self, kind: str) -> None:
        W = operators(kind)[0]
        commutator = (W[:, None] @ W[None] - W[None] @ W[:, None]).abs().amax()
        assert commutator > 0.1 if kind == "haar" else commutator < 1e-12

    def test_of_a_seed_do_not_depend_on_the_others(self, kind: str) -> None:
        together, alone = (family(kind).operators(seeds, "test", 3, 5) for seeds in ([4, 1, 9], [1]))
        assert together[1].equal(alone[0])
        assert not together[0].equal(alone[0])


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_phases_are_uniform_up_to_the_scale(scale: float) -> None:
    phases = {
        "unitary": operators("unitary", 500, phase_scale=scale).diagonal(dim1=-2, dim2=-1).angle(),
        "orthogonal": torch.linalg.eigvals(operators("orthogonal", 500, phase_scale=scale)).angle(),
    }
    for kind, angles in phases.items():
        turns = (angles.flatten() / (2 * torch.pi) * scale).sort().values
        if kind == "orthogonal":  # conjugate pairs
            torch.testing.assert_close(turns, -turns.flip(0), atol=1e-10, rtol=0)
            turns = turns[turns > 0]
        low, width = (-0.5, 1.0) if scale == 1 and kind == "unitary" else (0.0, 0.5 if scale == 1 else 1.0)
        assert stats.kstest(turns.numpy(), stats.uniform(low, width).cdf).pvalue > 0.01, kind


def test_the_trace_relation_of_a_plane_holds() -> None:
    """W^2 = tr(W) W - I in every plane: what the two-token rule of orthogonal sequences rests on."""
    W = operators("orthogonal")[..., :2, :2]
    trace = W.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    torch.testing.assert_close(W @ W, trace * W - torch.eye(2).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("first", ["ones", "random"])
@pytest.mark.parametrize("kind", KINDS)
class TestPrompts:
    def test_hold_one_state_after_another(self, kind: str, first: str, augmented: bool) -> None:
        asked = prompt(kind, first=first, augmented=augmented)
        states = asked.layout.read(asked.tokens, "features")
        following = (operators(kind)[:, :, None] @ states[..., None])[..., 0]
        torch.testing.assert_close(asked.answers, following, atol=1e-10, rtol=0)
        torch.testing.assert_close(asked.answers[..., :-1, :], states[..., 1:, :], atol=0, rtol=0)
        norm = states.abs().square().sum(-1)
        torch.testing.assert_close(norm, torch.ones_like(norm), atol=1e-10, rtol=0)

    def test_are_causal_and_every_prefix_is_asked(self, kind: str, first: str, augmented: bool) -> None:
        asked = prompt(kind, first=first, augmented=augmented)
        assert asked.causal
        assert asked.queries.tolist() == list(range(12))
        assert asked.context.equal(asked.tokens)
        assert asked.layout.width == (3 * D if augmented else D)
        assert (asked.weights == 1).all()


def test_augmented_tokens_carry_the_previous_state_and_room_for_the_output() -> None:
    asked = prompt("unitary")
    states, previous = (asked.layout.read(asked.tokens, name) for name in ("features", "previous"))
    assert (asked.layout.read(asked.tokens, "output") == 0).all()
    assert (previous[..., 0, :] == 0).all()
    assert previous[..., 1:, :].equal(states[..., :-1, :])


def test_first_states_are_equal_entries_or_uniform_on_the_sphere() -> None:
    ones = prompt("haar").layout.read(prompt("haar").tokens, "features")[..., 0, :]
    torch.testing.assert_close(ones, torch.full_like(ones, D**-0.5), atol=1e-12, rtol=0)
    drawn = family("haar", first="random").states([0], "test", 0, 4000, 1)[0, :, 0]
    for entry in drawn.unbind(-1):
        assert stats.kstest(((1 + entry) / 2).numpy(), stats.beta((D - 1) / 2, (D - 1) / 2).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"kind": "unitry"}, "did you mean 'unitary'"),
        ({"first": "zeros"}, "allowed: ones, random"),
        ({"d_features": 5, "kind": "orthogonal"}, "even where kind is orthogonal"),
        ({"d_features": 0}, "d_features is 0"),
        ({"phase_scale": 0.0}, "phase_scale is 0.0"),
        ({"kind": "haar", "phase_scale": 2.0}, "1 where kind is haar"),
    ],
)
def test_impossible_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AutoregressiveFamily(**setting)


def test_tokens_of_another_layout_are_refused() -> None:
    with pytest.raises(ConfigError, match="augmented is True"):
        family("unitary").fresh_prompt([0], "test", 0, 2, 5, state_layout(D, augmented=False))
