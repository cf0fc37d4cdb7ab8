"""Momentum and Chebyshev's iteration, by the polynomials of S that their errors are."""

from collections.abc import Callable

import pytest
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from algorithms.accelerated import Chebyshev, Momentum, chebyshev_steps
from algorithms.examples import moments
from algorithms.gradient_descent import GD
from algorithms.learner import Learner
from algorithms.least_squares import ConjugateGradient
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily
from tasks.streams import normals, uniforms

LOW, HIGH, L = 0.2, 3.0, 4
STEP, SPREAD = 2 / (HIGH + LOW), (HIGH - LOW) / (HIGH + LOW)
EIGENVALUES = torch.linspace(LOW, HIGH, 101, dtype=torch.float64)
PROMPT = RegressionFamily(3, noise=0.2).fresh_prompt([0, 1], "test", 0, 3, 9, labelled_layout(3))
ETA = torch.tensor([0.4, 0.9, 0.6, 0.2], dtype=torch.float64)
BETA = torch.tensor([0.9, 0.3, 0.5, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 6])
def test_chebyshev_is_the_scaled_chebyshev_polynomial(error_polynomial: Callable[..., Tensor], n_steps: int) -> None:
    """p_L(x) = T_L((h + l - 2 x) / (h - l)) / T_L((h + l) / (h - l)), at every step."""
    found = error_polynomial(Chebyshev(n_steps, STEP, SPREAD), EIGENVALUES)
    for step in range(n_steps + 1):
        unit = [0.0] * step + [1.0]
        scaled = torch.tensor(chebyshev.chebval(((HIGH + LOW - 2 * EIGENVALUES) / (HIGH - LOW)).numpy(), unit))
        expected = scaled / float(chebyshev.chebval(1 / SPREAD, unit))
        torch.testing.assert_close(found[step], expected, rtol=0, atol=1e-10)


def test_it_is_the_smallest_polynomial_on_the_interval(error_polynomial: Callable[..., Tensor]) -> None:
    """No steps of gradient descent, and no heavy ball, leave a smaller largest error on [low, high]."""
    best = error_polynomial(Chebyshev(L, STEP, SPREAD), EIGENVALUES)[-1].abs().max()
    roots = LOW + (HIGH - LOW) * uniforms([0], "test/roots", 0, 200, L)[0].double()
    near = (
        1 / torch.tensor(chebyshev_steps(LOW, HIGH, L), dtype=torch.float64) + 0.01 * normals([0], "test", 0, 200, L)[0]
    )
    for root in torch.cat([roots, near]):
        assert (1 - EIGENVALUES[:, None] / root).prod(-1).abs().max() > best
    for momentum in (0.1, 0.3, 0.5):
        assert error_polynomial(Momentum(L, STEP, momentum), EIGENVALUES)[-1].abs().max() > best


def test_gd_with_chebyshev_steps_ends_where_the_iteration_does() -> None:
    steps = torch.tensor(chebyshev_steps(LOW, HIGH, L), dtype=torch.float64)
    found, expected = GD(L, steps).predict(PROMPT), Chebyshev(L, STEP, SPREAD).predict(PROMPT)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (GD(L, steps * 1.01).predict(PROMPT) - expected).abs().max() > 1e-4


def test_without_spread_it_is_gd() -> None:
    torch.testing.assert_close(Chebyshev(L, 0.4, 0.0)(PROMPT).weights, GD(L, 0.4)(PROMPT).weights, rtol=0, atol=1e-12)


def test_momentum_is_the_heavy_ball() -> None:
    """Step by step, from two iterates back."""
    weights = Momentum(L, ETA, BETA)(PROMPT).weights
    assert weights is not None
    covariance, cross, _n = moments(PROMPT)
    S, c = covariance[..., 0, :, :], cross[..., 0, :, 0]
    before = torch.zeros_like(c)
    for step in range(L):
        now = weights[step]
        gradient = (S @ now[..., None])[..., 0] - c
        expected = now - ETA[step] * gradient + BETA[step] * (now - before)
        torch.testing.assert_close(weights[step + 1], expected, rtol=0, atol=1e-12)
        before = now
    same = Momentum(L, ETA, torch.cat([BETA[:1] - 0.5, BETA[1:]])).predict(PROMPT)
    assert same.equal(Momentum(L, ETA, BETA).predict(PROMPT))
    assert (Momentum(L, ETA, 0.0).predict(PROMPT) - same).abs().max() > 1e-3


def test_momentum_with_the_right_constants_is_conjugate_gradients() -> None:
    """For one prompt: CG is a heavy ball whose constants the prompt decides."""
    prompt = PROMPT.select(slice(0, 1))
    prompt = RegressionFamily(3).fresh_prompt([0], "test", 0, 1, 9, labelled_layout(3))
    w = ConjugateGradient(2)(prompt).weights
    assert w is not None
    covariance, cross, _n = moments(prompt)
    gradient = cross[0, 0, 0, :, 0] - covariance[0, 0, 0] @ w[1, 0, 0]
    constants = torch.linalg.lstsq(torch.stack([gradient, w[1, 0, 0]], -1), (w[2] - w[1])[0, 0, :, None]).solution
    first = w[1, 0, 0, 0] / cross[0, 0, 0, 0, 0]
    eta, beta = torch.stack([first, constants[0, 0]]), torch.stack([first * 0, constants[1, 0]])
    torch.testing.assert_close(Momentum(2, eta, beta)(prompt).weights, w, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("learner", "degree"), [(Momentum(L, ETA, BETA), L), (Chebyshev(L, STEP, SPREAD), L)])
def test_polynomial_degree(
    learner: Momentum | Chebyshev, degree: int, polynomial_degree: Callable[[Momentum | Chebyshev], int]
) -> None:
    assert polynomial_degree(learner) == degree


@pytest.mark.parametrize("kind", [Momentum, Chebyshev])
def test_is_differentiable_and_broadcasts_over_seeds(kind: type) -> None:
    first, second = (ETA, BETA) if kind is Momentum else (torch.tensor(0.5).double(), torch.tensor(0.8).double())
    values = [torch.stack([c, 0.5 * c])[:, None].clone().requires_grad_() for c in (first, second)]
    assert torch.autograd.gradcheck(lambda *c: kind(L, *c).predict(PROMPT), values)
    together = kind(L, *values)
    torch.testing.assert_close(
        together.predict(PROMPT)[1:], kind(L, 0.5 * first, 0.5 * second).predict(PROMPT)[1:], rtol=0, atol=1e-13
    )
    assert together(PROMPT).predictions[-1].equal(together.predict(PROMPT))
    assert isinstance(together, Learner)
