"""The closed form is the expectation over prompts, by exact quadrature; trained on it, a layer is that of Theorem 1."""

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.gradient_descent import one_step_loss, optimal_preconditioner
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from models.regression_constructions import gradient_descent
from models.single_layer import even_power, expected_loss, minimise_expected_loss, preconditioner
from tasks.layout import labelled_layout
from tasks.regression import covariance_matrix, covariance_power, labelled_prompt
from tasks.streams import normals

SPECTRUM = (1.0, 0.3)
SIGMA = covariance_power(covariance_matrix(SPECTRUM, 1), 1.0, 2)
ROOT = covariance_power(covariance_matrix(SPECTRUM, 1), 0.5, 2)


def network(readout_sign: int = -1) -> LinearTransformer:
    config = LinearTransformerConfig(1, False, 2, tokens="labelled", readout_sign=readout_sign)
    draws = normals([0, 1, 2], "weights", 0, 2, 1, 1, 3, 3).double()
    return LinearTransformer(config, draws[:, 0].clone(), draws[:, 1].clone())


def mean_loss(model: LinearTransformer, n: int) -> Tensor:
    """[seeds] E (f - y)^2 by Gauss-Hermite nodes, exact to degree 5 in every one of the Gaussians (it has 4)."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(3))
    grid = torch.cartesian_prod(*[nodes] * (2 * n + 4))
    chance = torch.cartesian_prod(*[weights / weights.sum()] * (2 * n + 4)).prod(-1)
    x, w = grid[:, :-2].unflatten(-1, (n + 1, 2)) @ ROOT, grid[:, -2:, None]
    labels = (x @ w)[..., 0]
    prompt = labelled_prompt(x[None], labels[None], labels[None, :, n:], torch.arange(len(x))[None], labelled_layout(2))
    return ((model.predict(prompt) - prompt.answers)[..., 0, 0].detach().square() * chance).sum(-1)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("readout_sign", [-1, 1])
def test_the_closed_form_is_the_expectation_over_prompts(n: int, readout_sign: int) -> None:
    model = network(readout_sign)
    expected = mean_loss(model, n)
    torch.testing.assert_close(expected_loss(model, SIGMA, n).detach(), expected, rtol=1e-10, atol=0)
    assert ((expected_loss(model, SIGMA, n + 1) - expected).abs() > 1e-3 * expected).all()


def test_without_other_weights_it_is_one_step_of_gradient_descent() -> None:
    A = normals([0, 1], "A", 0, 1, 2, 2).double()
    model = gradient_descent(A, n_layers=1)
    torch.testing.assert_close(preconditioner(model), A[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(even_power(model, SIGMA, 5), torch.zeros(2).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_loss(model, SIGMA, 5), one_step_loss(A[:, 0], SIGMA, 5), rtol=0, atol=1e-12)


def test_trained_on_it_a_layer_is_the_step_of_theorem_one() -> None:
    start = gradient_descent(torch.eye(2).double().expand(3, 1, 2, 2), n_layers=1)
    start = LinearTransformer(start.config, start.P + 0.1 * network().P, start.Q + 0.1 * network().Q)
    model, best = minimise_expected_loss(start, SIGMA, 5), optimal_preconditioner(SIGMA, 5)
    torch.testing.assert_close(preconditioner(model), best.expand(3, 2, 2), rtol=0, atol=1e-6)
    least = one_step_loss(best, SIGMA, 5)
    torch.testing.assert_close(expected_loss(model, SIGMA, 5), least.expand(3), rtol=0, atol=1e-10)
    assert (preconditioner(start) - best).norm(dim=(1, 2)).min() > 0.1


def test_a_network_of_rank_one_is_a_second_minimum() -> None:
    """It reads labels as keys: p . S w from the keys' values and r . x from the query's, P[label, label] being zero."""
    values, vectors = torch.linalg.eigh(SIGMA)
    step = vectors[:, 1] * (6 / 5 * values[1] + values.sum() / 5) ** -0.5  # the larger eigenvector's part of Theorem 1
    model = gradient_descent(torch.zeros(1, 1, 2, 2).double(), n_layers=1)
    P, Q = torch.zeros_like(model.P), torch.zeros_like(model.Q)
    model.layout.block(P, "label", "features")[:] = -step
    model.layout.block(Q, "label", "features")[:] = step
    model = LinearTransformer(model.config, P, Q)
    weights = (model.P, model.Q)
    loss = expected_loss(model, SIGMA, 5).sum()
    slopes = torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, weights, create_graph=True)])
    assert slopes.abs().max() < 1e-12
    rows = [torch.autograd.grad(slope, weights, retain_graph=True) for slope in slopes]
    curvature = torch.linalg.eigvalsh(torch.stack([torch.cat([x.flatten() for x in row]) for row in rows]))
    # flat: the entries that no prediction feels, P's other rows (6) and Q's last column (3), and the gauge (1)
    assert (curvature[:10].abs() < 1e-12).all()
    assert (curvature[10:] > 1e-3).all()
    assert loss.item() > 1.2 * one_step_loss(optimal_preconditioner(SIGMA, 5), SIGMA, 5).item()
