"""The rivals' own optima are those of the facts (d = 5, n = 20), and the closed forms they rest on hold."""

import pytest
import torch

from algorithms.accelerated import Chebyshev, Momentum
from algorithms.gradient_descent import GDPlusPlus, one_step_loss
from algorithms.learner import constants
from algorithms.optima import (
    accelerated_optimum,
    accelerated_polynomial,
    loss,
    polynomial,
    scalar_optimum,
    spectra,
    symmetric_power,
)
from tasks.layout import labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix

WHITE = spectra(RegressionFamily(), 20, 20_000)
SIGMA = covariance_matrix(AHN_SPECTRUM, 0)


def test_the_polynomial_is_the_learners_error():
    """w - w_L = p(S) w for GD++ in the coordinates that M whitens, prompt by prompt."""
    family = RegressionFamily(3, covariance=covariance_matrix((1.0, 0.5, 0.25), 0))
    M = torch.linalg.inv(torch.tensor(family.covariance, dtype=torch.float64))
    steps, rewrites = torch.tensor([0.4, 1.2, 2.0]).double(), torch.tensor([0.8, 0.5]).double()
    prompt = family.fresh_prompt([0], "test", 0, 5, 8, labelled_layout(3))
    learner = GDPlusPlus(3, steps[:, None, None] * M, torch.cat([rewrites, torch.zeros(1).double()]))
    weights = learner(prompt).weights
    assert weights is not None
    root = symmetric_power(M, 0.5)
    x = prompt.layout.read(prompt.context, "features")[0]
    values, vectors = torch.linalg.eigh(root @ (x.mT @ x / 8) @ root)
    left = vectors * polynomial(values, steps, rewrites)[..., None, :] @ vectors.mT
    true = family.weights([0], "test", 0, 5)[0]
    expected = (root @ left @ torch.linalg.inv(root) @ true[..., None])[..., 0]
    torch.testing.assert_close(true - weights[-1, 0], expected, rtol=0, atol=1e-10)


def test_the_loss_of_one_step_is_the_closed_form():
    family = RegressionFamily(covariance=SIGMA)
    covariance = torch.tensor(SIGMA, dtype=torch.float64)
    for M in (None, torch.linalg.inv(covariance)):
        sampled = spectra(family, 20, 40_000, M)
        step = torch.tensor([0.5], dtype=torch.float64)
        expected = one_step_loss(0.5 * (torch.eye(5).double() if M is None else M), covariance, 20)
        p = polynomial(sampled.eigenvalues, step, torch.zeros(0).double())
        error = sampled.losses(p).std() / 200
        assert abs(loss(sampled, step, torch.zeros(0).double()) - expected) < 4 * error


@pytest.mark.parametrize(
    ("kind", "n_steps", "expected", "steps"),
    [
        ("gd-constant", 1, 1.154, [0.769]),
        ("gd", 1, 1.154, [0.769]),
        ("gd-constant", 3, 0.269, None),
        ("gd", 3, 0.133, [0.42, 0.69, 1.71]),
        ("gd-plus-plus", 3, 6.6e-4, [0.377, 2.411, 9.663]),
    ],
)
def test_optima_are_those_of_the_facts(kind, n_steps, expected, steps):
    found = scalar_optimum(kind, n_steps, WHITE)
    left = polynomial(WHITE.eigenvalues, found.steps, found.rewrites)
    error = WHITE.losses(left).std().item() / len(left) ** 0.5
    assert found.loss == pytest.approx(expected, abs=4 * error)
    assert 4 * error < 0.2 * expected
    if steps is not None:
        assert sorted(found.steps.tolist()) == pytest.approx(steps, rel=0.02)
    if kind == "gd-plus-plus":
        assert found.rewrites.tolist() == pytest.approx([0.911, 0.567], rel=0.01)


def test_preconditioning_makes_all_covariances_alike():
    M = torch.linalg.inv(torch.tensor(SIGMA, dtype=torch.float64))
    rotated = spectra(RegressionFamily(covariance=SIGMA, prior="inverse-covariance"), 20, 200, M)
    white = spectra(RegressionFamily(), 20, 200)
    torch.testing.assert_close(rotated.coupling, torch.eye(5).double().expand(200, 5, 5), rtol=0, atol=1e-10)
    torch.testing.assert_close(rotated.eigenvalues.sum(-1).mean(), white.eigenvalues.sum(-1).mean(), rtol=0.05, atol=0)


def test_the_polynomial_of_plain_steps_needs_no_memory():
    """Without momentum, or without spread, p is that of equal steps."""
    values, steps = WHITE.eigenvalues[:50], torch.full((3,), 0.4, dtype=torch.float64)
    expected = polynomial(values, steps, torch.zeros(0).double())
    for learner in (Momentum(3, 0.4, 0.0), Chebyshev(3, 0.4, 0.0)):
        torch.testing.assert_close(accelerated_polynomial(learner, values), expected, rtol=0, atol=1e-12)
    assert (accelerated_polynomial(Momentum(3, 0.4, 0.1), values) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [Momentum, Chebyshev])
def test_memory_at_its_best_is_between_equal_and_free_steps(kind):
    """Two shared numbers leave less than one, and hardly more than a size for every step; at one step all are one."""

    def left(learner):
        return WHITE.losses(accelerated_polynomial(learner, WHITE.eigenvalues)).mean().item()

    assert left(accelerated_optimum(kind, 1, WHITE)) == pytest.approx(scalar_optimum("gd", 1, WHITE).loss, rel=1e-6)
    best = accelerated_optimum(kind, 3, WHITE)
    equal, free = (scalar_optimum(name, 3, WHITE).loss for name in ("gd-constant", "gd"))
    assert free < left(best) < 1.01 * free < 0.6 * equal
    first, second = (float(getattr(best, name)) for name in list(constants(kind)))
    for factors in ((1.02, 1.0), (0.98, 1.0), (1.0, 1.02), (1.0, 0.98)):
        assert left(kind(3, first * factors[0], second * factors[1])) > left(best)


def test_an_unknown_kind_is_named():
    with pytest.raises(KeyError, match="gd-constant, gd, gd-plus-plus"):
        scalar_optimum("sgd", 1, WHITE)
