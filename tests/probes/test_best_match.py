"""A trace is most like itself, similarities are the cosines that they say, and iterations are counted between steps."""

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.gradient_descent import GD
from algorithms.learner import Learner
from algorithms.least_squares import OLS, Newton
from probes.best_match import (
    best_match,
    matched_iterations,
    relative_error,
    similarity_of_errors,
    similarity_of_weights,
    unexplained,
)
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily

PROMPT = RegressionFamily(4, n_queries=6).fresh_prompt([0, 1], "test", 0, 20, 12, labelled_layout(4))


def traced(learner: Learner) -> tuple[Tensor, Tensor]:
    trace = learner(PROMPT)
    assert trace.weights is not None
    return trace.predictions, trace.weights


def test_every_iterate_matches_itself() -> None:
    f, w = traced(GD(8, 0.4))
    for similarity in (similarity_of_errors(f, f, PROMPT), similarity_of_weights(w[1:], w[1:])):
        diagonal = similarity.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(diagonal, torch.ones_like(diagonal), rtol=0, atol=1e-12)
        assert best_match(similarity).equal(torch.arange(similarity.shape[1]).expand(2, -1).to(similarity))
    assert unexplained(f, f, PROMPT).diagonal(dim1=-2, dim2=-1).abs().max() == 0


def test_every_second_iterate_matches_every_second() -> None:
    """Newton from eta I would be GD at 1, 2, 4, ...; here the layers are GD's own even steps."""
    f, _ = traced(GD(8, 0.4))
    assert best_match(similarity_of_errors(f[::2], f, PROMPT)).tolist() == [[0, 2, 4, 6, 8]] * 2


def test_similarities_are_mean_cosines() -> None:
    (f, w), (g, v) = traced(GD(2, 0.4)), traced(Newton(2))
    errors, weights = similarity_of_errors(f, g, PROMPT), similarity_of_weights(w, v)
    for seed, layer, step in np.ndindex(2, 3, 3):
        cosines: list[list[float]] = [[], []]
        for task in range(20):
            y = PROMPT.answers[seed, task, :, 0]
            residuals = (f[layer, seed, task, :, 0] - y, g[step, seed, task, :, 0] - y)
            for found, (a, b) in zip(cosines, (residuals, (w[layer, seed, task], v[step, seed, task])), strict=True):
                found.append(float(a @ b / (a.norm() * b.norm())))
        assert errors[seed, layer, step].item() == pytest.approx(np.mean(cosines[0]), abs=1e-12)
        expected = np.mean(cosines[1]) if layer else np.nan  # GD starts at zero
        assert weights[seed, layer, step].item() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_an_error_of_rounding_is_like_nothing() -> None:
    f, _ = traced(GD(2, 0.4))
    g, _ = traced(OLS())
    similarity = similarity_of_errors(f, g, PROMPT)
    assert similarity[..., 1].isnan().all()
    assert (best_match(similarity) == 0).all()
    assert best_match(similarity_of_errors(g, f, PROMPT))[:, 1].isnan().all()


def test_tasks_without_an_error_are_not_counted() -> None:
    """Where one of two tasks is solved, the similarity is that of the other."""
    f, _ = traced(GD(2, 0.4))
    g = torch.cat([PROMPT.answers[:, :10].expand(3, -1, -1, -1, -1), f[:, :, 10:]], 2)
    part = PROMPT.select(slice(10, None))
    expected = similarity_of_errors(f[:, :, 10:], f[:, :, 10:], part)
    torch.testing.assert_close(similarity_of_errors(f, g, PROMPT), expected, rtol=0, atol=1e-12)


def test_errors_of_equal_size_match_in_between() -> None:
    errors = torch.tensor([[1.0], [0.1], [0.01], [0.5], [0.001]])
    layers = torch.tensor([[1.0], [10**-0.5], [0.01], [0.005], [2.0]])
    np.testing.assert_allclose(matched_iterations(layers, errors), [[0, 0.5, 2, np.nan, np.nan]], atol=1e-6)


def test_what_an_iterate_misses_is_relative_to_the_layers_error() -> None:
    (f, _), (exact, _) = traced(GD(2, 0.4)), traced(OLS())
    missed = unexplained(f, exact, PROMPT)
    torch.testing.assert_close(missed[..., 1], torch.ones(2, 3, dtype=torch.float64), rtol=0, atol=1e-9)
    error = relative_error(f, PROMPT)
    assert (error[0] == 1).all()
    expected = (f[1] - f[2]).square().mean((-2, -1)) / (f[1] - PROMPT.answers).square().mean((-2, -1))
    torch.testing.assert_close(unexplained(f, f, PROMPT)[:, 1, 2], expected.quantile(0.5, -1), rtol=0, atol=1e-12)
