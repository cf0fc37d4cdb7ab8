"""GD++ is a polynomial of every eigenvalue, and its best constants are those known, up to the sample of prompts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.examples import moments
from algorithms.gradient_descent import GDPlusPlus
from algorithms.spectral import Steps, best_steps, error_of
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily

STEPS = Steps(np.array([0.4, 0.9, 0.6]), np.array([0.5, -0.3, 0.2]))
EIGENVALUES = np.linspace(0.1, 2.5, 25)
PROMPT = RegressionFamily(5).fresh_prompt([0], "test/spectral", 0, 4000, 20, labelled_layout(5))
SPECTRUM = torch.linalg.eigvalsh(moments(PROMPT).covariance).flatten().numpy()
BEST = best_steps(SPECTRUM, 4)


def learner_of(steps: Steps, d: int) -> GDPlusPlus:
    preconditioner = torch.tensor(steps.step_size)[:, None, None] * torch.eye(d)
    return GDPlusPlus(len(steps.step_size), preconditioner, torch.tensor(steps.rewrite))


def test_the_error_is_the_learners(error_polynomial: Callable[..., Tensor]) -> None:
    found = error_polynomial(learner_of(STEPS, len(EIGENVALUES)), torch.tensor(EIGENVALUES))[-1].numpy()
    np.testing.assert_allclose(error_of(STEPS, EIGENVALUES), found, rtol=0, atol=1e-10)
    other = error_of(STEPS._replace(rewrite=STEPS.rewrite + 1e-3), EIGENVALUES)
    assert np.abs(other - found).max() > 1e-4


def test_the_mean_square_is_the_loss() -> None:
    """d E p^2 is E (x_q . (w - w_L))^2 over w and x_q: up to the queries that the prompts happen to have."""
    squares = (learner_of(BEST[2], 5).predict(PROMPT) - PROMPT.answers).square().mean((0, 2, 3))
    loss = 5 * np.mean(error_of(BEST[2], SPECTRUM) ** 2)
    assert abs(squares.mean() - loss) < 4 * squares.std() / len(squares) ** 0.5


def test_known_optima() -> None:
    """a = (.377, 2.411, 9.663) and b = (.911, .567) at three layers, .769 at one, each on its own sample of prompts."""
    losses = [5 * np.mean(error_of(steps, SPECTRUM) ** 2) for steps in BEST]
    assert losses[0] == pytest.approx(1.154, rel=0.02)
    assert losses[2] == pytest.approx(6.6e-4, rel=0.4)  # rare contexts make most of it
    assert BEST[0].step_size[0] == pytest.approx(20 / 26, rel=0.01)
    np.testing.assert_allclose(BEST[2].step_size, (0.377, 2.411, 9.663), rtol=0.05)
    np.testing.assert_allclose(BEST[2].rewrite, (0.911, 0.567, 0), rtol=0.05)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4])
def test_no_other_constants_nearby_are_better(n_steps: int) -> None:
    best, spectrum = BEST[n_steps - 1], SPECTRUM
    loss = np.mean(error_of(best, spectrum) ** 2)
    for number in range(n_steps):
        for factor in (0.999, 1.001):
            scale = np.where(np.arange(n_steps) == number, factor, 1.0)
            assert np.mean(error_of(best._replace(step_size=best.step_size * scale), spectrum) ** 2) > loss
            if number < n_steps - 1:
                assert np.mean(error_of(best._replace(rewrite=best.rewrite * scale), spectrum) ** 2) > loss


def test_late_layers_are_newton_and_schulzs_for_the_inverse_root() -> None:
    """b = 1/3 and a growing by 9/4 square the deviation of a lambda from one; any other constants do so linearly."""
    deviation = np.linspace(-1e-3, 1e-3, 5)[[0, 1, 3, 4]]
    for rewrite, order in ((1 / 3, 2), (0.3, 1)):
        growth = (1 - rewrite) ** -2
        after = growth * (1 - deviation) * (1 - rewrite * (1 - deviation)) ** 2
        ratio = np.log(np.abs(1 - after)) / np.log(np.abs(deviation))
        assert (ratio > 1.9).all() if order == 2 else (ratio < 1.5).all()
    assert np.abs(BEST[3].rewrite[2] - 1 / 3) < np.abs(BEST[3].rewrite[1] - 1 / 3) < np.abs(BEST[3].rewrite[0] - 1 / 3)
