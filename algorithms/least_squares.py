"""Learners that solve the normal equations S W = C: at once, by second-order iterations, or as Bayes would."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from algorithms.examples import LinearLearner, Moments
from algorithms.learner import as_constant, constant

# Relative to the largest, and in units of rounding: smaller eigenvalues of S, or residuals of C, are taken for zero.
ROUNDING = 1e3


@dataclass(frozen=True)
class OLS(LinearLearner):
    """Ordinary least squares, the shortest solution where the examples leave it open: W = S^+ C."""

    def iterates(self, moments: Moments) -> list[Tensor]:
        covariance, cross, _n = moments
        inverse = torch.linalg.pinv(covariance, hermitian=True, rtol=ROUNDING * torch.finfo(cross.dtype).eps)
        return [torch.zeros_like(cross), inverse @ cross]


@dataclass(frozen=True)
class Ridge(LinearLearner):
    """Ridge regression, W = (S + lambda I)^-1 C.

    Where w ~ N(0, I) and labels carry noise of variance sigma^2, lambda = sigma^2 / n is Bayes-optimal.
    """

    ridge: float | Tensor = constant(1e-8, 100.0, (0.01, 0.3))

    def iterates(self, moments: Moments) -> list[Tensor]:
        covariance, cross, _n = moments
        ridge = as_constant(self.ridge, covariance, trailing=3)
        regularised = covariance + ridge * torch.eye(covariance.shape[-1], dtype=covariance.dtype)
        return [torch.zeros_like(cross), torch.linalg.solve(regularised, cross)]


@dataclass(frozen=True)
class Newton(LinearLearner):
    """Iterative Newton for the inverse (Schulz), W_k = M_k C: M <- 2 M - M S M from M_0 = scale S / |S S|_F.

    I - M_k S = (I - M_0 S)^(2^k), so it converges to OLS for every scale below 2. The authors' code of arXiv 2310.17086
    starts at scale 1, its text at 2 / |S S|_2.
    """

    n_steps: int
    scale: float | Tensor = constant(0.0, 2.0, (1.0, 0.3))

    def iterates(self, moments: Moments) -> list[Tensor]:
        covariance = moments.covariance
        size = torch.linalg.matrix_norm(covariance @ covariance).clamp(min=torch.finfo(covariance.dtype).tiny)
        first = as_constant(self.scale, covariance, trailing=3) * covariance / size[..., None, None]
        return [inverse @ moments.cross for inverse in newton_inverses(covariance, first, self.n_steps)]


def newton_inverses(
    matrix: Inexact[Tensor, "*batch d d"], first: Inexact[Tensor, "*#batch2 d d"], n_steps: int
) -> list[Tensor]:
    """M_0, ..., M_k of M <- 2 M - M S M, approximations of S^-1."""
    inverses = [first]
    for _ in range(n_steps):
        inverses.append(2 * inverses[-1] - inverses[-1] @ matrix @ inverses[-1])
    return inverses


@dataclass(frozen=True)
class ConjugateGradient(LinearLearner):
    """Conjugate gradients on S W = C from zero, output by output: exact after as many steps as S has eigenvalues."""

    n_steps: int

    def iterates(self, moments: Moments) -> list[Tensor]:
        covariance, cross, _n = moments
        weights, residual, direction = torch.zeros_like(cross), cross, cross
        power = _squares(residual)
        solved = (ROUNDING * torch.finfo(cross.dtype).eps) ** 2 * power
        iterates = [weights]
        for _ in range(self.n_steps):
            image = covariance @ direction
            curvature = (direction.conj() * image).real.sum(-2, keepdim=True)
            going = (power > solved) & (curvature > 0)
            step = torch.where(going, power / curvature.where(going, 1.0), 0.0)
            weights, residual = weights + step * direction, residual - step * image
            previous, power = power, _squares(residual)
            direction = residual + torch.where(going, power / previous.where(going, 1.0), 0.0) * direction
            iterates.append(weights)
        return iterates


def _squares(vectors: Inexact[Tensor, "*batch d out"]) -> Float[Tensor, "*batch 1 out"]:
    return (vectors.conj() * vectors).real.sum(-2, keepdim=True)


@dataclass(frozen=True)
class PoolBayes(LinearLearner):
    """The posterior mean of w, uniform over a pool of tasks [seeds, n_tasks, d], labels with noise N(0, noise^2): the
    dMMSE of arXiv 2306.15063. Batch axes are (seeds, tasks)."""

    pool: Float[Tensor, "seeds n_tasks d"]
    noise: float | Tensor = constant(1e-3, 10.0, (0.5, 0.05))

    def iterates(self, moments: Moments) -> list[Tensor]:
        return [torch.zeros_like(moments.cross), _posterior_mean(moments, self.pool, self.noise, 0.0)]


@dataclass(frozen=True)
class SmoothedPoolBayes(LinearLearner):
    """The same where every task of the pool stands for N(w_m, smoothing^2 I): smoothed dMMSE."""

    pool: Float[Tensor, "seeds n_tasks d"]
    noise: float | Tensor = constant(1e-3, 10.0, (0.5, 0.05))
    smoothing: float | Tensor = constant(0.0, 10.0, (0.1, 1.0))

    def iterates(self, moments: Moments) -> list[Tensor]:
        return [torch.zeros_like(moments.cross), _posterior_mean(moments, self.pool, self.noise, self.smoothing)]


def _posterior_mean(
    moments: Moments, pool: Float[Tensor, "seeds n_tasks d"], noise: float | Tensor, smoothing: float | Tensor
) -> Tensor:
    """E[w | examples] [*batch, 1, d, 1] for w ~ (1/M) sum_m N(w_m, e^2 I), y = X w + N(0, s^2).

    With g_m = n (C - S w_m) and K = s^2 I + e^2 n S, component m has the mean w_m + e^2 K^-1 g_m and, up to what all
    share, the log evidence (n w_m (2 C - S w_m) + e^2 g_m K^-1 g_m) / 2 s^2. Raises ValueError for several outputs.
    """
    covariance, cross, n = moments
    if cross.shape[-1] != 1:
        raise ValueError(f"a pool of weight vectors predicts one output, the examples have {cross.shape[-1]}")
    variance, spread = (as_constant(c, covariance, trailing=3).square() for c in (noise, smoothing))
    centres = pool.to(covariance).mT[:, None, None]  # [seeds, 1, 1, d, n_tasks]
    gradient = n * (cross - covariance @ centres)
    precision = variance * torch.eye(covariance.shape[-1], dtype=covariance.dtype) + spread * n * covariance
    shift = spread * torch.linalg.solve(precision, gradient)
    evidence = (centres * (n * cross + gradient) + gradient * shift).sum(-2, keepdim=True) / (2 * variance)
    return (torch.softmax(evidence, -1) * (centres + shift)).sum(-1, keepdim=True)
