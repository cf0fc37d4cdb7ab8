"""Training of a positional factor alone, in closed form (arXiv 2402.05787, Fig. 6).

For numbers s_t = lambda^(t-1) of modulus one and one head with C = 1, the network of models.causal predicts
sum_j p_j lambda^(T - 2 j) instead of lambda^T, where p_j = P[T, T-j]. The mean loss over lambda = exp(i phi) is

    (e_0 - p)^T G (e_0 - p),   G_jk = E cos 2 (j - k) phi

with e_0 = (1, 0, ...): the last state alone is always an optimum, and so is every p that differs from it by a null
direction of G. In k steps gradient descent from zero comes to p = (I - (I - eta G)^k) e_0.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class PositionalFit(NamedTuple):
    """Where training stopped: P [seeds, n, n] of models.causal, the loss and the number of steps, each [seeds]."""

    P: Tensor
    loss: Tensor
    steps: Tensor


def lag_gram(phases: Float[Tensor, "seeds samples"], n: int) -> Float[Tensor, "seeds n n"]:
    """G over n lags, the mean over sampled phases."""
    lag = torch.arange(n)
    by_distance = (2 * lag[:, None] * phases[:, None]).cos().mean(-1)
    return by_distance[:, (lag[:, None] - lag).abs()]


def descend(
    gram: Float[Tensor, "seeds n n"], *, learning_rate: float, target_loss: float, max_steps: int
) -> PositionalFit:
    """Gradient descent from P = 0 on the loss averaged over the prefixes T = 2, ..., n, until it is below target_loss.

    The first step at which it is, or max_steps, is found by bisection: with a stable rate the loss falls at every step.
    """
    n = gram.shape[-1]
    inside = torch.arange(n) < torch.arange(2, n + 1)[:, None]  # [prefixes, lags]
    own = gram[:, None] * inside[:, None] * inside[..., None]
    values, vectors = torch.linalg.eigh(own)  # [seeds, prefixes, n], lags beyond the prefix have the eigenvalue zero
    start = vectors[..., 0, :]  # e_0 in the eigenbasis
    left = 1 - 2 * learning_rate / (n - 1) * values  # of e_0 - p after a step

    def loss(steps: Int[Tensor, " seeds"]) -> Float[Tensor, " seeds"]:
        return (left ** (2 * steps[:, None, None]) * values * start.square()).sum(-1).mean(-1)

    low = torch.zeros(len(gram), dtype=torch.int64)
    high = torch.full_like(low, max_steps)
    while bool((low < high).any()):
        middle = (low + high) // 2
        reached = loss(middle) < target_loss
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
        low = torch.minimum(low, high)
    found = ((1 - left ** high[:, None, None])[..., None, :] * vectors @ start[..., None])[..., 0]
    by_lag = torch.nn.functional.pad(found, (0, 0, 1, 0))  # [seeds, T, lag]; a prefix of one state has no query
    key = (torch.arange(n)[:, None] - torch.arange(n)).clamp(min=0)
    return PositionalFit(by_lag.gather(-1, key.expand_as(by_lag)).tril(), loss(high), high)


def null_projector(gram: Float[Tensor, "seeds n n"], threshold: float) -> Float[Tensor, "seeds n n"]:
    """The orthogonal projector on G's eigenvectors with eigenvalues below a threshold."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * (values < threshold)[:, None] @ vectors.mT
