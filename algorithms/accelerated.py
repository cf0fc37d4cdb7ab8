"""Gradient descent with memory: Polyak's momentum, and Chebyshev's steps, the best that fixed numbers can do.

After L steps the error of the weights is p_L(S) (W - W_0) with a polynomial p_L, p_L(0) = 1, of degree L. Chebyshev's
is the smallest on an interval of eigenvalues (Golub and Varga 1961).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from algorithms.examples import LinearLearner, Moments
from algorithms.gradient_descent import LARGEST_STEP, STEP_SIZES, step_sizes
from algorithms.learner import as_constant, constant


@dataclass(frozen=True)
class Momentum(LinearLearner):
    """The heavy ball: W_{l+1} = W_l + eta_l (C - S W_l) + beta_l (W_l - W_{l-1}); beta_0 has no effect."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)
    momentum: float | Tensor = constant(0.0, 1.0, (0.3, 0.0), per_step=True)

    def iterates(self, moments: Moments) -> list[Tensor]:
        weights, change = torch.zeros_like(moments.cross), torch.zeros_like(moments.cross)
        iterates = [weights]
        free = (step_sizes(c, self.n_steps, moments) for c in (self.step_size, self.momentum))
        for step_size, momentum in zip(*free, strict=True):
            change = step_size * moments.descent(weights) + momentum * change
            weights = weights + change
            iterates.append(weights)
        return iterates


@dataclass(frozen=True)
class Chebyshev(LinearLearner):
    """Chebyshev semi-iteration for eigenvalues in [low, high]: step_size 2 / (high + low), spread (high - low) / (high
    + low). Spread zero is gradient descent with one step size.

    W_{l+1} = W_{l-1} + omega_l (W_l + eta (C - S W_l) - W_{l-1}),   omega_0 = 1,
    omega_1 = 1 / (1 - spread^2 / 2),   omega_l = 1 / (1 - spread^2 omega_{l-1} / 4).
    """

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES)
    spread: float | Tensor = constant(0.0, 1.0, (0.5, 0.9))

    def iterates(self, moments: Moments) -> list[Tensor]:
        step_size, spread = (as_constant(c, moments.covariance, trailing=3) for c in (self.step_size, self.spread))
        before = weights = torch.zeros_like(moments.cross)
        omega, iterates = torch.ones_like(spread), [weights]
        for step in range(self.n_steps):
            if step:
                omega = 1 / (1 - spread.square() * (omega / 4 if step > 1 else 0.5))
            ahead = before + omega * (weights + step_size * moments.descent(weights) - before)
            before, weights = weights, ahead
            iterates.append(weights)
        return iterates


def chebyshev_steps(low: float, high: float, n_steps: int) -> list[float]:
    """Step sizes with which plain gradient descent ends where Chebyshev's iteration does: 1 / the roots of p_L."""
    centre, radius = (high + low) / 2, (high - low) / 2
    return [1 / (centre + radius * math.cos((2 * k + 1) * math.pi / (2 * n_steps))) for k in range(n_steps)]
