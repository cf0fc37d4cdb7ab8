"""Which of several unknown numbers is the largest: the probability of each, given independent posteriors.

p_a = P(x_a = max_b x_b) = int f_a(x) prod_{b != a} F_b(x) dx
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, pi

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial import legendre
from torch import Tensor

NODES = 64  # for Betas: to 1e-10 where parameters are whole numbers and no arm has 100 observations, 1e-6 up to 200
POINTS = 128  # for Gaussians
DEVIATIONS = 7.0  # of a Gaussian, beyond which nothing of it is left
NOTHING = (
    -40.0
)  # the logarithm of a density that adds nothing; smaller ones would become denormal numbers, which are slow


def beta_optimality(
    wins: Float[Tensor, "*batch arms"], losses: Float[Tensor, "*batch arms"]
) -> Float[Tensor, "*batch arms"]:
    """p_a of x_a ~ Beta(wins_a, losses_a), by Gauss-Legendre quadrature.

    Densities are interpolated at the nodes, so that one matrix integrates them up to every node: F = C f.
    """
    nodes, weights, cumulative = (torch.as_tensor(x, dtype=wins.dtype, device=wins.device) for x in _legendre(NODES))
    norm = torch.lgamma(wins + losses) - torch.lgamma(wins) - torch.lgamma(losses)
    log_density = (wins - 1)[..., None] * nodes.log() + (losses - 1)[..., None] * (-nodes).log1p() + norm[..., None]
    density = log_density.clamp(min=NOTHING).exp()
    return _optimality(density, density @ cumulative.mT, weights)


def gaussian_optimality(
    mean: Float[Tensor, "*batch arms"], sd: Float[Tensor, "*batch arms"]
) -> Float[Tensor, "*batch arms"]:
    """p_a of x_a ~ N(mean_a, sd_a^2), by the trapezoidal rule between where the largest x may begin and end.

    The rule is exact to rounding where its points lie no further apart than the smallest sd that matters.
    """
    first = (mean - DEVIATIONS * sd).amax(-1, keepdim=True)
    last = (mean + DEVIATIONS * sd).amax(-1, keepdim=True)
    steps = torch.linspace(0, 1, POINTS, dtype=mean.dtype, device=mean.device)
    points = first + (last - first) * steps
    z = (points[..., None, :] - mean[..., None]) / sd[..., None]
    density = (-z.square() / 2).clamp(min=NOTHING).exp() / (sd[..., None] * (2 * pi) ** 0.5)
    return _optimality(density, torch.erfc(-z * 0.5**0.5) / 2, ((last - first) / (POINTS - 1))[..., None, :])


def _optimality(
    density: Float[Tensor, "*batch arms points"],
    cumulative: Float[Tensor, "*batch arms points"],
    weights: Float[Tensor, "*#weights points_or_one"],
) -> Float[Tensor, "*batch arms"]:
    log_below = cumulative.clamp(min=exp(NOTHING)).log()
    others = (log_below.sum(-2, keepdim=True) - log_below).clamp(min=NOTHING).exp()
    law = (density * others * weights).sum(-1)
    return law / law.sum(-1, keepdim=True)


@lru_cache
def _legendre(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights [n] on (0, 1), and the matrix [n, n] that integrates from 0 to every node.

    With f = sum_k c_k P_k, c_k = (2k + 1) / 2 sum_j w_j P_k(x_j) f(x_j), and the integral of P_k from -1 to x is
    (P_{k+1}(x) - P_{k-1}(x)) / (2k + 1), x + 1 for k = 0.
    """
    x, w = legendre.leggauss(n)
    values = legendre.legvander(x, n)  # P_k(x_i), k = 0 ... n
    integrals = np.concatenate([(x + 1)[:, None], (values[:, 2:] - values[:, :-2]) / (2 * np.arange(1, n) + 1)], 1)
    coefficients = (2 * np.arange(n) + 1)[:, None] / 2 * (w * values[:, :n].T)
    return (x + 1) / 2, w / 2, integrals @ coefficients / 2
