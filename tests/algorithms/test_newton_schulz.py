"""The constants of Newton and Schulz: always convergent, quadratic in the end, and where the best constants tend to."""

from itertools import pairwise

import pytest
import torch

from algorithms.examples import moments
from algorithms.gradient_descent import GDPlusPlus
from algorithms.newton_schulz import GROWTH, REWRITE, newton_schulz_steps
from algorithms.optima import polynomial, scalar_optimum, spectra
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily


def test_every_error_shrinks() -> None:
    """Even beyond the largest eigenvalue that was expected; up to that one without a change of sign."""
    eigenvalues = torch.linspace(0.01, 2.5, 250, dtype=torch.float64)
    errors = [polynomial(eigenvalues, *newton_schulz_steps(1.0, count)) for count in range(1, 14)]
    for before, after in pairwise(errors):
        assert (after.abs() <= before.abs()).all()
    assert (errors[3][eigenvalues <= 1] >= 0).all()
    assert errors[-1].abs().max() < 1e-10
    steps, rewrites = newton_schulz_steps(1.0, 13)
    assert not (polynomial(eigenvalues, steps, rewrites - 0.03).abs() < 1e-10).all()


@pytest.mark.parametrize(("rewrite", "order"), [(REWRITE, 2), (0.3, 1)])
def test_deviations_are_squared(rewrite: float, order: int) -> None:
    """And by no other rewrite, though u = 1 stays with all of them."""
    deviation = torch.tensor([-1e-3, -1e-4, 1e-4, 1e-3], dtype=torch.float64)
    u = 1 - deviation
    after = (1 - (1 - rewrite) ** -2 * u * (1 - rewrite * u) ** 2).abs()
    assert (1 - rewrite) ** -2 == pytest.approx(GROWTH, rel=1e-12) or order == 1
    rate = after.log() / deviation.abs().log()
    assert (rate > 1.9).all() if order == 2 else (rate < 1.5).all()


def test_covariates_become_those_of_the_polar_factor() -> None:
    """sqrt(a_l) x_l runs X <- 3/2 X - X X^T X / 2n, which ends where X^T X / n = I."""
    prompt = RegressionFamily(3).fresh_prompt([0], "test", 0, 2, 12, labelled_layout(3))
    n_steps, largest = 12, 4.0
    steps, rewrites = newton_schulz_steps(largest, n_steps)
    learner = GDPlusPlus(n_steps, steps[:, None, None] * torch.eye(3), rewrites)
    x = prompt.layout.read(prompt.context, "features")
    X = x / largest**0.5
    for layer, covariate_map in enumerate(learner.covariate_maps(moments(prompt))):
        mine = (GROWTH**layer / largest) ** 0.5 * x @ covariate_map[..., 0, :, :]
        torch.testing.assert_close(mine, X, rtol=0, atol=1e-10)
        X = 1.5 * X - 0.5 * X @ X.mT @ X / 12
    whitened = (X.mT @ X / 12).squeeze(0)
    torch.testing.assert_close(whitened, torch.eye(3).double().expand(2, -1, -1), rtol=0, atol=1e-10)


def test_the_best_constants_tend_to_them() -> None:
    contexts = spectra(RegressionFamily(5), 20, 200)
    best = scalar_optimum("gd-plus-plus", 4, contexts)
    off = (best.rewrites - REWRITE).abs()
    assert off[2] < off[1] < off[0]
    assert (best.steps[3] / best.steps[2] - GROWTH).abs() < (best.steps[1] / best.steps[0] - GROWTH).abs() / 2
