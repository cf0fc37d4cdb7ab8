"""Gradient descent on the examples of a prompt: plain, preconditioned, and GD++, which rewrites the covariates too.

All minimise the mean of |y - x W|^2 / 2 from W_0 = 0, by the moments S and C alone (see algorithms.examples). The
closed forms at the end are the preconditioners that a single layer of attention is best at (arXiv 2306.00297).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.examples import LinearLearner, Moments
from algorithms.learner import constant, per_step

STEP_SIZES = (1.0, 0.1, 2.5)
# The last of three optimal GD++ steps is 9.7 for white covariates, and grows as these shrink: no fit is meant to end
# there. One that does says so, and excludes nothing (`Fit.at_bound`).
LARGEST_STEP = 1000.0
LARGEST_REWRITE = 10.0


def step_sizes(value: float | Tensor, n_steps: int, moments: Moments) -> list[Tensor]:
    """One step size per step, [*batch, 1, 1, 1] to multiply weights [*batch, prefixes, d, out] by."""
    return [size[..., None, None] for size in per_step(value, n_steps, moments.covariance)]


@dataclass(frozen=True)
class GD(LinearLearner):
    """Gradient descent: W <- W + eta_l (C - S W)."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)

    def iterates(self, moments: Moments) -> list[Tensor]:
        iterates = [torch.zeros_like(moments.cross)]
        for step_size in step_sizes(self.step_size, self.n_steps, moments):
            iterates.append(iterates[-1] + step_size * moments.descent(iterates[-1]))
        return iterates


@dataclass(frozen=True)
class Averaging(GD):
    """One step from zero, W = eta (1/n) sum_i x_i^H y_i: it averages, and learns from no error."""

    n_steps: int = 1


@dataclass(frozen=True)
class PreconditionedGD(LinearLearner):
    """W <- W + A_l (C - S W) with any A_l [*batch, steps | 1, d, d]: Lemma 1 of arXiv 2306.00297."""

    n_steps: int
    preconditioner: float | Tensor = constant(-LARGEST_STEP, LARGEST_STEP, STEP_SIZES, per_step=True, matrix=True)

    def iterates(self, moments: Moments) -> list[Tensor]:
        iterates = [torch.zeros_like(moments.cross)]
        for preconditioner in per_step(self.preconditioner, self.n_steps, moments.covariance, matrix=True):
            iterates.append(iterates[-1] + preconditioner[..., None, :, :] @ moments.descent(iterates[-1]))
        return iterates


@dataclass(frozen=True)
class GDPlusPlus(LinearLearner):
    """GD++: every step also moves the covariates of examples and queries along S, so that they become whiter.

    With x_i^(0) = x_i, residuals r_i^(0) = y_i, and the moments S_l, C_l of (x_i^(l), r_i^(l)),

        r_i <- r_i - x_i A_l C_l,   x_i <- x_i - b_l x_i A_l S_l

    for any A_l [*batch, steps | 1, d, d]: the full family with Q = -A_l^T and P = b_l I in their blocks. Theorem 4 of
    arXiv 2306.00297 has A_l = a_l Sigma^-1, and 2212.07677 A_l = a_l I. b = 0 is preconditioned GD. The last b_l has no
    effect.
    """

    n_steps: int
    preconditioner: float | Tensor = constant(-LARGEST_STEP, LARGEST_STEP, STEP_SIZES, per_step=True, matrix=True)
    rewrite: float | Tensor = constant(-LARGEST_REWRITE, LARGEST_REWRITE, (0.5, 0.0, 1.0), per_step=True)

    def iterates(self, moments: Moments) -> list[Tensor]:
        return [weights for weights, _map in self._steps(moments)]

    def covariate_maps(self, moments: Moments) -> list[Tensor]:
        """T_0 = I, T_1, ... [*batch, prefixes, d, d]: after l steps the covariates are x T_l."""
        return [covariate_map for _weights, covariate_map in self._steps(moments)]

    def _steps(self, moments: Moments) -> Iterator[tuple[Tensor, Tensor]]:
        """W_l and T_l from step 0 on; the moments are closed under a step."""
        covariance, cross, _n = moments
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
        weights, covariate_map = torch.zeros_like(cross), identity.expand_as(covariance)
        yield weights, covariate_map
        preconditioners = per_step(self.preconditioner, self.n_steps, covariance, matrix=True)
        rewrites = step_sizes(self.rewrite, self.n_steps, moments)
        for preconditioner, rewrite in zip((A[..., None, :, :] for A in preconditioners), rewrites, strict=True):
            step = preconditioner @ cross
            weights = weights + covariate_map @ step
            change = identity - rewrite * preconditioner @ covariance
            cross = change.mH @ (cross - covariance @ step)
            covariance = change.mH @ covariance @ change
            covariate_map = covariate_map @ change
            yield weights, covariate_map


def optimal_preconditioner(covariance: Float[Tensor, "d d"], n: int) -> Float[Tensor, "d d"]:
    """The A of the best single layer of linear attention, x ~ N(0, Sigma), w ~ N(0, I) (Theorem 1, arXiv 2306.00297):

    A = ((n + 1) / n Sigma + tr(Sigma) / n I)^-1; for Sigma = I it is n / (n + d + 1) I.
    """
    return torch.linalg.inv(((n + 1) * covariance + covariance.trace() * torch.eye(len(covariance)).to(covariance)) / n)


def one_step_loss(
    preconditioner: Float[Tensor, "*batch d d"], covariance: Float[Tensor, "d d"], n: int
) -> Float[Tensor, "*batch"]:
    """E (x . w - x . A S w)^2 after one step with any A, x ~ N(0, Sigma), w ~ N(0, I), n examples.

    tr Sigma - 2 tr(Sigma A Sigma) + tr(Sigma A E[S S] A^T), where E[S S] = (n + 1) / n Sigma^2 + tr(Sigma) / n Sigma.
    """
    square = ((n + 1) * covariance @ covariance + covariance.trace() * covariance) / n
    missed = covariance @ preconditioner @ square @ preconditioner.mT - 2 * covariance @ preconditioner @ covariance
    return covariance.trace() + missed.diagonal(dim1=-2, dim2=-1).sum(-1)


def optimal_relu_step(d: int, n: int) -> float:
    """The step size of the best single layer of ReLU attention, x, w ~ N(0, I) (Theorem 5, arXiv 2306.00297)."""
    return 1 / ((n - 1) / (2 * n) + (d + 2) / n)
