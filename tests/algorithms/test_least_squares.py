"""Solvers of the normal equations, against numpy, scikit-learn, their polynomials, and Bayes' rule written as a sum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from algorithms.examples import examples, moments
from algorithms.gradient_descent import GD
from algorithms.learner import Learner
from algorithms.least_squares import (
    OLS,
    ConjugateGradient,
    Newton,
    PoolBayes,
    Ridge,
    SmoothedPoolBayes,
    newton_inverses,
)
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily, covariance_matrix

D = 4


def make(n: int = 9, noise: float = 0.3) -> Prompt:
    family = RegressionFamily(D, covariance_matrix((1.0, 0.3, 2.0, 0.5), rotation=1), noise=noise, n_queries=3)
    return family.fresh_prompt([0, 1], "test", 0, 3, n, labelled_layout(D))


def weights(learner: Learner, prompt: Prompt) -> Tensor:
    found = learner(prompt).weights
    assert found is not None
    return found


@pytest.mark.parametrize("n", [2, D, 9], ids=["under-determined", "square", "over-determined"])
def test_ols_is_the_shortest_least_squares_solution(n: int) -> None:
    prompt = make(n)
    x, y, _seen = examples(prompt)
    found = weights(OLS(), prompt)[-1]
    for seed, task in np.ndindex(2, 3):
        expected = np.linalg.lstsq(x[seed, task].numpy(), y[seed, task].numpy(), rcond=None)[0][:, 0]
        np.testing.assert_allclose(found[seed, task].numpy(), expected, rtol=0, atol=1e-10)


def test_ols_recovers_the_operator_of_a_sequence() -> None:
    """Exactly, from prefixes of more than d states on; the shortest solution before misses what it has not seen."""
    family = AutoregressiveFamily(3, "haar", first="random")
    prompt = family.fresh_prompt([0], "test", 0, 5, 8, family.layout)
    error = (OLS().predict(prompt) - prompt.answers).norm(dim=-1).amax((0, 1))
    assert (error[4:] < 1e-8).all()
    assert (error[:3] > 1e-2).all()


@pytest.mark.parametrize("n", [2, 9])
def test_ridge_is_scikit_learns(n: int) -> None:
    prompt, penalties = make(n), torch.tensor([[0.05], [0.4]], dtype=torch.float64)
    x, y, _seen = examples(prompt)
    found = weights(Ridge(penalties), prompt)[-1]
    for seed, task in np.ndindex(2, 3):
        # it adds its penalty to the sum over examples, not to their mean
        model = SklearnRidge(alpha=n * penalties[seed].item(), fit_intercept=False, tol=1e-14, solver="cholesky")
        expected = model.fit(x[seed, task].numpy(), y[seed, task, :, 0].numpy()).coef_
        np.testing.assert_allclose(found[seed, task].numpy(), expected, rtol=0, atol=1e-10)


def test_ridge_is_bayes() -> None:
    """lambda = sigma^2 / n: any other penalty errs more, w ~ N(0, I)."""
    prompt = RegressionFamily(D, noise=0.5, n_queries=1).fresh_prompt([0], "test", 0, 20_000, 6, labelled_layout(D))
    best, *others = (
        (Ridge(penalty).predict(prompt) - prompt.answers).square().mean() for penalty in (0.25 / 6, 0.02, 0.08, 0.25)
    )
    assert all(best < other for other in others)


class TestNewton:
    def test_squares_the_error_with_every_step(self) -> None:
        """I - M_k S = (I - M_0 S)^(2^k)."""
        covariance = moments(make()).covariance
        first = 0.05 * torch.eye(D, dtype=torch.float64) + 0.1 * covariance
        identity = torch.eye(D, dtype=torch.float64)
        for k, inverse in enumerate(newton_inverses(covariance, first, 4)):
            expected = torch.linalg.matrix_power(identity - first @ covariance, 2**k)
            torch.testing.assert_close(identity - inverse @ covariance, expected, rtol=0, atol=1e-10)

    def test_from_a_multiple_of_the_identity_it_is_gd_with_doubling_steps(self) -> None:
        """k steps of Newton from eta I and 2^k steps of gradient descent of size eta are one function."""
        prompt = make()
        inverse = newton_inverses(moments(prompt).covariance, 0.2 * torch.eye(D, dtype=torch.float64), 4)[-1]
        expected = (inverse @ moments(prompt).cross)[..., 0, :, 0]
        torch.testing.assert_close(weights(GD(16, 0.2), prompt)[-1], expected, rtol=0, atol=1e-10)
        assert (weights(GD(15, 0.2), prompt)[-1] - expected).abs().max() > 1e-4

    @pytest.mark.parametrize("n_steps", [0, 1, 2])
    def test_polynomial_degree(self, n_steps: int, polynomial_degree: Callable[[Any], int]) -> None:
        """From M_0 ~ S the error is (1 - c lambda^2)^(2^k), of degree 2^(k + 1)."""
        assert polynomial_degree(Newton(n_steps)) == 2 ** (n_steps + 1)

    @pytest.mark.parametrize("scale", [0.4, 1.0, 1.9])
    def test_converges_to_ols_for_every_scale_below_two(self, scale: float) -> None:
        for prompt in (make(9), make(3)):
            expected = weights(OLS(), prompt)[-1]
            torch.testing.assert_close(weights(Newton(40, scale), prompt)[-1], expected, rtol=0, atol=1e-9)
        assert not (weights(Newton(40, 4.5), make())[-1].abs() < 1e3).all()


class TestConjugateGradient:
    @pytest.mark.parametrize("n", [2, 9])
    @pytest.mark.parametrize("n_steps", [D, 3 * D])
    def test_is_exact_after_d_steps_and_stays_there(self, n: int, n_steps: int) -> None:
        prompt = make(n)
        found = weights(ConjugateGradient(n_steps), prompt)
        torch.testing.assert_close(found[-1], weights(OLS(), prompt)[-1], rtol=0, atol=1e-9)
        if n > D:
            assert (found[D - 1] - found[D]).abs().max() > 1e-4

    def test_is_the_best_of_its_krylov_space(self) -> None:
        """After k steps no W in span(C, S C, ..., S^(k-1) C) has a smaller mean squared error: the gradient is
        orthogonal to the space."""
        prompt = make()
        covariance, cross, _n = moments(prompt)
        found = weights(ConjugateGradient(D), prompt)
        space, gradient = [cross], cross
        for k in range(1, D):
            basis = torch.cat(space, -1)
            gradient = moments(prompt).descent(found[k][:, :, None, :, None])
            assert (basis.mT @ gradient).abs().max() < 1e-10
            coordinates = torch.linalg.lstsq(basis, found[k][:, :, None, :, None]).solution
            assert (basis @ coordinates - found[k][:, :, None, :, None]).abs().max() < 1e-10
            space.append(covariance @ space[-1])
        assert (space[-1].mT @ gradient).abs().max() > 1e-4

    def test_solves_every_prefix_of_a_sequence(self) -> None:
        family = AutoregressiveFamily(3, "unitary", first="random")
        prompt = family.fresh_prompt([0], "test", 0, 4, 7, family.layout)
        found = ConjugateGradient(3).predict(prompt)
        torch.testing.assert_close(found, OLS().predict(prompt), rtol=0, atol=1e-6)


class TestPoolBayes:
    family = RegressionFamily(D, noise=0.4, n_tasks=5, n_queries=3)
    noise = torch.tensor([[0.4], [0.9]], dtype=torch.float64)

    def prompt(self, n: int = 3) -> Prompt:
        return self.family.pool_prompt([0, 1], "test", 0, 3, n, labelled_layout(D))

    def test_is_the_posterior_mean_as_a_sum_over_the_pool(self) -> None:
        prompt, pool = self.prompt(), self.family.pool([0, 1])
        x, y, _seen = examples(prompt)
        found = weights(PoolBayes(pool, self.noise), prompt)[-1]
        for seed, task in np.ndindex(2, 3):
            variance = self.noise[seed, 0].item() ** 2
            likelihood = [
                np.exp(-((y[seed, task, :, 0] - x[seed, task] @ w).square().sum().item()) / (2 * variance))
                for w in pool[seed]
            ]
            expected = np.average(pool[seed].numpy(), axis=0, weights=likelihood)
            np.testing.assert_allclose(found[seed, task].numpy(), expected, rtol=0, atol=1e-10)

    @pytest.mark.parametrize("smoothing", [0.3, 1.5])
    def test_smoothed_is_the_posterior_mean_of_a_mixture(self, smoothing: float) -> None:
        """Every component from the joint Gaussian of (w, y), its evidence from the density of y."""
        prompt, pool = self.prompt(), self.family.pool([0, 1])
        x, y, _seen = examples(prompt)
        found = weights(SmoothedPoolBayes(pool, self.noise, smoothing), prompt)[-1]
        for seed, task in np.ndindex(2, 3):
            X, labels = x[seed, task].numpy(), y[seed, task, :, 0].numpy()
            covariance = self.noise[seed, 0].item() ** 2 * np.eye(3) + smoothing**2 * X @ X.T
            evidence, means = [], []
            for w in pool[seed].numpy():
                evidence.append(multivariate_normal(X @ w, covariance).pdf(labels))
                means.append(w + smoothing**2 * X.T @ np.linalg.solve(covariance, labels - X @ w))
            expected = np.average(means, axis=0, weights=evidence)
            np.testing.assert_allclose(found[seed, task].numpy(), expected, rtol=0, atol=1e-10)

    def test_limits(self) -> None:
        prompt, pool = self.prompt(), self.family.pool([0, 1])
        same = SmoothedPoolBayes(pool, self.noise, 0.0).predict(prompt)
        torch.testing.assert_close(same, PoolBayes(pool, self.noise).predict(prompt), rtol=0, atol=1e-13)
        at_zero = SmoothedPoolBayes(torch.zeros(1, 1, D, dtype=torch.float64), 0.4, 1.0).predict(prompt)
        torch.testing.assert_close(at_zero, Ridge(0.4**2 / 3).predict(prompt), rtol=0, atol=1e-12)

    def test_knows_the_task_once_it_has_seen_enough(self) -> None:
        prompt, pool = self.prompt(60), self.family.pool([0, 1])
        error = (PoolBayes(pool, 0.4).predict(prompt) - prompt.answers).abs()
        assert error.max() < 1e-6
        assert (OLS().predict(prompt) - prompt.answers).abs().max() > 1e-2

    def test_a_sequence_is_refused(self) -> None:
        family = AutoregressiveFamily(D, "haar")
        prompt = family.fresh_prompt([0], "test", 0, 1, 5, family.layout)
        with pytest.raises(ValueError, match="one output, the examples have 4"):
            PoolBayes(self.family.pool([0]), 0.4).predict(prompt)


POOL = RegressionFamily(D, n_tasks=6).pool([0, 1])
CONSTANTS: list[tuple[Callable[..., Learner], tuple[float, ...]]] = [
    (Ridge, (0.3,)),
    (lambda scale: Newton(3, scale), (0.7,)),
    (lambda noise: PoolBayes(POOL, noise), (0.5,)),
    (lambda noise, smoothing: SmoothedPoolBayes(POOL, noise, smoothing), (0.5, 0.2)),
]


@pytest.mark.parametrize(("build", "values"), CONSTANTS, ids=["ridge", "newton", "pool", "smoothed"])
def test_is_differentiable_and_broadcasts_over_seeds(build: Callable[..., Learner], values: tuple[float, ...]) -> None:
    prompt = make()
    by_seed = [torch.tensor([[v], [1.5 * v]], dtype=torch.float64, requires_grad=True) for v in values]
    assert torch.autograd.gradcheck(lambda *constants: build(*constants).predict(prompt), by_seed)
    together = build(*by_seed)
    alone = build(*(1.5 * v for v in values)).predict(prompt)
    torch.testing.assert_close(together.predict(prompt)[1:], alone[1:], rtol=0, atol=1e-12)
    assert together(prompt).predictions[-1].equal(together.predict(prompt))
    assert isinstance(together, Learner)
