"""The optima of arXiv 2402.05787 are the rules that they are said to be, and optima."""

import pytest
import torch
from torch import Tensor

from algorithms.autoregressive import TwoToken
from algorithms.gradient_descent import GD
from models.causal import CausalTransformer
from models.causal_config import CausalConfig
from models.causal_constructions import (
    best_step_size,
    element_product,
    gradient_step,
    positional_encoding,
    trace_relation,
    untwisted,
)
from models.config import ConfigError
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, state_layout

D, LENGTH = 4, 7


def sequences(kind: str, *, augmented: bool, n: int = 5, first: str = "ones") -> Prompt:
    family = AutoregressiveFamily(D, kind, first=first, augmented=augmented)
    return family.fresh_prompt([0], "test", 0, n, LENGTH, family.layout)


def step_of(size: float) -> CausalTransformer:
    return gradient_step(torch.tensor([size], dtype=torch.float64), D)


@pytest.mark.parametrize("first", ["ones", "random"])
@pytest.mark.parametrize("kind", ["unitary", "orthogonal", "haar"])
def test_the_augmented_network_is_one_step_of_gradient_descent(kind: str, first: str) -> None:
    prompt = sequences(kind, augmented=True, first=first)
    expected = GD(1, 0.3 * LENGTH).predict(prompt)  # the sum over pairs is LENGTH times a mean
    torch.testing.assert_close(step_of(0.3).predict(prompt), expected, rtol=0, atol=1e-12)
    assert (step_of(0.301).predict(prompt) - expected).abs().max() > 1e-5


@pytest.mark.parametrize(("kind", "scale"), [("unitary", D), ("orthogonal", D / 2)])
def test_the_plain_optima_make_no_error_and_are_the_two_token_rule(kind: str, scale: float) -> None:
    model = (element_product if kind == "unitary" else trace_relation)(D, LENGTH)
    exact = sequences(kind, augmented=False)
    torch.testing.assert_close(model.predict(exact)[..., 1:, :], exact.answers[..., 1:, :], rtol=0, atol=1e-12)
    other = sequences(kind, augmented=False, first="random")
    rule = TwoToken(float(scale)).predict(other)
    torch.testing.assert_close(model.predict(other), rule, rtol=0, atol=1e-12)
    assert (rule - other.answers).abs().max() > 0.1  # right only where entries have equal moduli


def phase_grid(n_phases: int, size: int) -> Tensor:
    angles = torch.arange(size, dtype=torch.float64) * 2 * torch.pi / size
    return torch.cartesian_prod(*[angles] * n_phases)


def grid_loss(model: CausalTransformer, d: int, length: int) -> float:
    """E |prediction - s_{T+1}|^2 over all prefixes and uniform phases, exact."""
    phases = phase_grid(d, 2 * length + 2)
    states = torch.exp(1j * phases[:, None] * torch.arange(length + 1)[:, None])[None] * d**-0.5
    tokens, n = states[:, :, :-1], len(phases)
    previous = torch.nn.functional.pad(tokens[:, :, :-1], (0, 0, 1, 0))
    prompt = Prompt(
        tokens=torch.cat([torch.zeros_like(tokens), tokens, previous], -1),
        layout=state_layout(d, augmented=True),
        queries=torch.arange(length),
        answers=states[:, :, 1:],
        task=torch.arange(n)[None],
        weights=torch.ones(1, n, length, dtype=torch.float64),
        causal=True,
    )
    return (model.predict(prompt) - prompt.answers).abs().square().sum(-1).mean().item()


def test_the_best_step_size_has_the_least_expected_loss() -> None:
    d, pairs = 3, 4
    best = best_step_size(d, pairs)

    def loss(size: float) -> float:
        return grid_loss(gradient_step(torch.tensor([size], dtype=torch.float64), d), d, pairs + 1)

    # the loss is a parabola in the step: its slope at the vertex, from two points beside it
    assert loss(best + 0.1) == pytest.approx(loss(best - 0.1), abs=1e-12)
    assert loss(best) < loss(best + 0.1) - 1e-4


def test_the_best_step_size_is_the_published_one() -> None:
    """In the paper's units: .0266 at d = 5 and 50 pairs, .0132 at d = 10 and 100, towards 3 / (2 n) for many pairs."""
    assert best_step_size(5, 50) / 5 == pytest.approx(0.0266, abs=1e-4)
    assert best_step_size(10, 100) / 10 == pytest.approx(0.0132, abs=1e-4)
    assert best_step_size(5, 100_000) / 5 == pytest.approx(1.5 / 100_000, rel=1e-3)


def twisted(model: CausalTransformer, signs: Tensor) -> CausalTransformer:
    layout, P, Q = model.layout, model.P.detach().clone(), model.Q.detach().clone()
    layout.block(P, "output", "features").mul_(signs[:, None])
    layout.block(Q, "previous", "features").mul_(signs)
    return CausalTransformer(model.config, {"P": P, "Q": Q})


def test_commuting_sequences_cannot_see_a_twist_and_others_can() -> None:
    signs = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    straight = gradient_step(torch.tensor([0.4], dtype=torch.float64), 3)
    model = twisted(straight, signs)
    assert grid_loss(model, 3, 4) == pytest.approx(grid_loss(straight, 3, 4), abs=1e-12)
    family = AutoregressiveFamily(3, "haar")
    prompt = family.fresh_prompt([0], "test", 0, 200, 5, family.layout)
    errors = [(m.predict(prompt) - prompt.answers).square().mean() for m in (straight, model)]
    assert errors[1] > 1.2 * errors[0]
    back = untwisted(model)
    torch.testing.assert_close(back.predict(prompt), straight.predict(prompt), rtol=0, atol=1e-12)
    assert (model.predict(prompt) - straight.predict(prompt)).abs().max() > 0.1


def test_only_one_augmented_layer_can_be_untwisted() -> None:
    with pytest.raises(ConfigError, match="one layer and one head"):
        untwisted(element_product(D, LENGTH))
    shape = (1, 2, 1, 6, 6)
    deep = CausalTransformer(CausalConfig(2, 2), {"P": torch.zeros(shape), "Q": torch.zeros(shape)})
    with pytest.raises(ConfigError, match="one layer and one head"):
        untwisted(deep)


def test_positions_alone_predict_the_sum_over_lags() -> None:
    family = AutoregressiveFamily(1, phase_scale=20.0, augmented=False)
    prompt = family.fresh_prompt([0], "test", 0, 3, LENGTH, family.layout)
    P = torch.randn(1, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = positional_encoding(P).predict(prompt)[0, :, -1, 0]
    phase = family.operators([0], "test", 0, 3)[0, :, 0, 0].angle()
    expected = sum(P[0, -1, LENGTH - 1 - j] * torch.exp(1j * phase * (LENGTH - 2 * j)) for j in range(LENGTH))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
