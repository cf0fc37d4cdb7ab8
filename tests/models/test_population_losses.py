"""The closed forms are expectations: means over a grid of phases, which integrate these trigonometric sums exactly."""

import pytest
import torch
from torch import Tensor

from models.causal import CausalTransformer
from models.causal_config import CausalConfig
from models.population_losses import orthogonal_loss, unitary_loss
from tasks.layout import Prompt, state_layout
from tasks.streams import normals

D, LENGTH, GRID = 4, 4, 14  # exponents of a squared error stay below 2 * LENGTH in every phase


def network(d: int) -> CausalTransformer:
    config = CausalConfig(1, d, augmented=False, n_heads=3, context_length=LENGTH)
    shapes = config.weight_shapes.items()
    return CausalTransformer(config, {name: normals([0, 1], name, 0, *shape).double() for name, shape in shapes})


def grid(n_phases: int) -> Tensor:
    """[GRID^n_phases, n_phases]"""
    angles = torch.arange(GRID, dtype=torch.float64) * 2 * torch.pi / GRID
    return torch.cartesian_prod(*[angles] * n_phases).reshape(-1, n_phases)


def mean_loss(model: CausalTransformer, phases: Tensor) -> Tensor:
    """[seeds] E |prediction - s_{T+1}|^2 over prefixes of two states or more, entries of W exp(i phases)."""
    n, d = phases.shape
    states = torch.exp(1j * phases[:, None] * torch.arange(LENGTH + 1)[:, None])[None] * d**-0.5
    prompt = Prompt(
        tokens=states[:, :, :-1],
        layout=state_layout(d, augmented=False),
        queries=torch.arange(LENGTH),
        answers=states[:, :, 1:],
        task=torch.arange(n)[None],
        weights=torch.ones(1, n, LENGTH, dtype=torch.float64),
        causal=True,
    )
    error = (model.predict(prompt) - prompt.answers).abs().square().sum(-1)
    return error[:, :, 1:].mean((1, 2))


def test_unitary_loss_is_the_expected_one() -> None:
    model = network(3)
    expected = mean_loss(model, grid(3))
    torch.testing.assert_close(unitary_loss(model.C, model.P), expected, rtol=1e-12, atol=0)
    assert ((unitary_loss(model.C, 1.001 * model.P) - expected).abs() > 1e-6).all()


def test_orthogonal_loss_is_the_expected_one() -> None:
    model = network(D)
    phases = grid(D // 2)
    pairs = torch.stack([phases, -phases], -1).flatten(-2)
    expected = mean_loss(model, pairs)
    torch.testing.assert_close(orthogonal_loss(model.C, model.P), expected, rtol=1e-12, atol=0)
    assert ((unitary_loss(model.C, model.P) - expected).abs() > 1e-3).all()


@pytest.mark.parametrize("loss", [unitary_loss, orthogonal_loss])
def test_what_stands_above_the_diagonal_of_positions_does_not_count(loss) -> None:
    model = network(D)
    P = model.P.detach()
    above = P + torch.ones_like(P).triu(1)
    assert torch.equal(loss(model.C, above), loss(model.C, P))


@pytest.mark.parametrize("share", [-0.5, 0.3, 1.0])
def test_rotations_have_a_family_of_optima(share: float) -> None:
    """C_ii' = r C_ii and p_{T-1} = -r / (1 + r) p_T: r = 0 is the rule for unitary W, r = 1 that of d/2 heads."""
    block = torch.tensor([[1.0, share], [share, 1.0]], dtype=torch.float64)
    C = torch.kron(torch.eye(D // 2, dtype=torch.float64), block)[None]
    last = torch.eye(LENGTH, dtype=torch.float64)
    P = D * (last - share / (1 + share) * last.roll(-1, -1).tril())[None]
    assert orthogonal_loss(C, P).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss(C, 1.01 * P).item() > 1e-5
    rank = torch.linalg.matrix_rank(C).item()
    assert rank == (D // 2 if share == 1.0 else D)
