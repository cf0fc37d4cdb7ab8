"""The two-token rules are without error where they should be, on sequences made by hand, and nowhere else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from algorithms.autoregressive import CopyLast, TwoToken
from algorithms.learner import Learner
from tasks.autoregressive import AutoregressiveFamily
from tasks.errors import LearnscopeError
from tasks.layout import Prompt, labelled_layout, state_layout
from tasks.regression import RegressionFamily

D, T = 4, 6


def prompt_of(states: Tensor, augmented: bool) -> Prompt:
    """s_1, ..., s_{T+1} [seeds, tasks, T + 1, d] as a causal prompt."""
    tokens = states[..., :-1, :]
    if augmented:
        before = torch.cat([torch.zeros_like(tokens[..., :1, :]), tokens[..., :-1, :]], -2)
        tokens = torch.cat([torch.zeros_like(tokens), tokens, before], -1)
    return Prompt(
        tokens=tokens,
        layout=state_layout(states.shape[-1], augmented=augmented),
        queries=torch.arange(T),
        answers=states[..., 1:, :],
        task=torch.zeros(states.shape[:2], dtype=torch.int64),
        weights=torch.ones(*states.shape[:2], T, dtype=torch.float64),
        causal=True,
    )


def angles(n: int) -> Tensor:
    return 2 * torch.pi * torch.rand(2, 3, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def unitary(modulus: float = 1.0) -> Tensor:
    """s_{t,j} = r exp(i (theta_j t + phi_j)): modulus r in every coordinate."""
    phase = angles(D)[..., None, :] * torch.arange(T + 1)[:, None] + torch.arange(D)
    return modulus * torch.exp(1j * phase)


def rotations(modulus: float = 1.0) -> Tensor:
    """(r cos, r sin) of theta_j t + phi_j, plane by plane."""
    phase = angles(D // 2)[..., None, :] * torch.arange(T + 1)[:, None] + torch.arange(D // 2)
    return modulus * torch.stack([phase.cos(), phase.sin()], -1).flatten(-2)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("states", [unitary(), rotations()], ids=["unitary", "orthogonal"])
def test_without_error_on_commuting_operators(states: Tensor, augmented: bool) -> None:
    prompt = prompt_of(states, augmented)
    found = TwoToken().predict(prompt)
    torch.testing.assert_close(found[..., 1:, :], prompt.answers[..., 1:, :], rtol=0, atol=1e-12)
    assert not found[..., 0, :].any()


@pytest.mark.parametrize("states", [unitary(0.5), rotations(0.5)], ids=["unitary", "orthogonal"])
def test_the_scale_is_one_over_the_squared_modulus(states: Tensor) -> None:
    prompt = prompt_of(states, False)
    found = TwoToken(4.0).predict(prompt)
    torch.testing.assert_close(found[..., 1:, :], prompt.answers[..., 1:, :], rtol=0, atol=1e-12)
    assert (TwoToken(3.9).predict(prompt) - prompt.answers)[..., 1:, :].abs().max() > 1e-3


@pytest.mark.parametrize(("kind", "scale"), [("unitary", 5.0), ("orthogonal", 2.0)])
def test_without_error_on_the_papers_sequences(kind: str, scale: float) -> None:
    """From equal entries 1 / sqrt(d) the modulus is 1 / sqrt(d) by coordinate, sqrt(2 / d) by plane."""
    family = AutoregressiveFamily(5 if kind == "unitary" else 4, kind)
    prompt = family.fresh_prompt([0, 1], "test", 0, 4, T, family.layout)
    found = TwoToken(scale).predict(prompt)
    torch.testing.assert_close(found[..., 1:, :], prompt.answers[..., 1:, :], rtol=0, atol=1e-12)


def test_the_plane_rule_also_serves_conjugate_pairs() -> None:
    """Rotations by theta in real coordinates, and exp(+-i theta) in those that diagonalise them, obey s_{T+1} =
    2 cos(theta) s_T - s_{T-1}; the coordinate rule does not see the pairs."""
    states = rotations()
    first, second = states[..., 0::2], states[..., 1::2]
    complex_pairs = torch.stack([first + 1j * second, first - 1j * second], -1).flatten(-2)
    cosine = (states[..., :-1, :] * states[..., 1:, :]).unflatten(-1, (-1, 2)).sum(-1)[..., 0, :]
    for sequence in (states, complex_pairs):
        doubled = 2 * cosine.repeat_interleave(2, -1)[..., None, :] * sequence[..., 1:-1, :]
        torch.testing.assert_close(doubled - sequence[..., :-2, :], sequence[..., 2:, :], rtol=0, atol=1e-12)


def test_errs_where_operators_do_not_commute() -> None:
    family = AutoregressiveFamily(D, "haar")
    prompt = family.fresh_prompt([0, 1], "test", 0, 50, T, family.layout)
    for scale in (0.5, 1.0, 2.0, 4.0):
        error = (TwoToken(scale).predict(prompt) - prompt.answers)[..., 1:, :].square().sum(-1).mean()
        assert error > 0.3


def test_copy_last() -> None:
    prompt = prompt_of(unitary(), True)
    assert CopyLast().predict(prompt).equal(prompt.layout.read(prompt.tokens, "features"))
    labelled = RegressionFamily(3, n_queries=4).fresh_prompt([0], "test", 0, 2, 6, labelled_layout(3))
    assert (CopyLast().predict(labelled) == labelled.context[..., -1:, 3:]).all()


@pytest.mark.parametrize("make", [unitary, rotations])
def test_is_differentiable_and_broadcasts_over_seeds(make: Callable[[], Tensor]) -> None:
    prompt, scale = prompt_of(make(), False), torch.tensor([[0.7], [1.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: TwoToken(s).predict(prompt), [scale])
    together = TwoToken(scale)(prompt).predictions
    assert not together[0].any()
    torch.testing.assert_close(together[1, 1:], TwoToken(1.4).predict(prompt)[1:], rtol=0, atol=1e-14)
    assert all(isinstance(learner, Learner) for learner in (TwoToken(), CopyLast()))


def test_what_it_cannot_read_is_refused() -> None:
    labelled = RegressionFamily(3, n_queries=4).fresh_prompt([0], "test", 0, 2, 6, labelled_layout(3))
    with pytest.raises(LearnscopeError, match="must be causal"):
        TwoToken().predict(labelled)


def test_a_coordinate_without_a_partner_is_reflected_or_kept() -> None:
    signs = torch.tensor([-1.0, 1.0, -1.0])[:, None, None] ** torch.arange(T + 1)[:, None]
    prompt = prompt_of(torch.cat([rotations(), signs.double().expand(2, 3, T + 1, 1)], -1), False)
    found = TwoToken().predict(prompt)
    torch.testing.assert_close(found[..., 1:, :], prompt.answers[..., 1:, :], rtol=0, atol=1e-12)
