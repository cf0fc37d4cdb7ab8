"""Expected losses in closed form of the plain causal network, d independent uniform phases (arXiv 2402.05787).

In the eigenbasis of W the states of norm one that start with equal entries are s_t = d^-1/2 (lambda_1^(t-1), ...,
lambda_d^(t-1)), and the network of models.causal predicts, with p = P[T] / d,

    d^1/2 (s_{T+1})_i = sum_t sum_j p_t C_ij lambda_j^(t-T+1) lambda_i^(t-1)        instead of lambda_i^T

Expectations of products of powers of the lambda are one where all exponents vanish, else zero: the losses below count
which terms share their exponents. Each is E |prediction - s_{T+1}|^2, averaged over the prefixes T = 2, 3, ...
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Heads = Float[Tensor, "seeds d d"]
Positions = Float[Tensor, "seeds n n"]


class _Prefixes(NamedTuple):
    """What the losses need of the rows p of P / d from the second on, each [seeds, n - 1, 1].

    last, query: p_T and p_{T-1}; others, others_square: sum of p_t and of p_t^2 over all t but T - 1.
    """

    last: Tensor
    query: Tensor
    others: Tensor
    others_square: Tensor

    @classmethod
    def of(cls, P: Positions, d: int) -> _Prefixes:
        rows = P.tril()[:, 1:] / d
        query = rows.diagonal(dim1=-2, dim2=-1)
        last = rows.diagonal(1, dim1=-2, dim2=-1)
        sums = rows.sum(-1) - query, rows.square().sum(-1) - query.square()
        return cls(*(x[..., None] for x in (last, query, *sums)))


def unitary_loss(C: Heads, P: Positions) -> Float[Tensor, " seeds"]:
    """lambda_i = exp(i theta_i), independent theta_i ~ U(0, 2 pi). d times a prefix's:

    |C|^2 sum_{t != T-1} p_t^2 + |C 1|^2 p_{T-1}^2 - 2 p_T tr C + d

    (The authors' script lets t = T - 1 into the first sum; the minimisers are the same.)
    """
    p = _Prefixes.of(P, C.shape[-1])
    rows, total = C.square().sum(-1)[:, None], C.sum(-1)[:, None]
    return _expected(C, p, rows * p.others_square + (total * p.query).square())


def orthogonal_loss(C: Heads, P: Positions) -> Float[Tensor, " seeds"]:
    """Conjugate pairs lambda_2k, lambda_2k+1 = exp(+-i theta_k), independent theta_k ~ U(0, 2 pi). d times a prefix's:

    sum_i [ q sum_{j != i'} C_ij^2 + (p_{T-1} sum_j C_ij + C_ii' sum_{t != T-1} p_t)^2 ] - 2 p_T tr C + d

    with q = sum_{t != T-1} p_t^2 and i' the partner of i, whose terms have the exponent T - 2 of lambda_i for every t.
    """
    p = _Prefixes.of(P, C.shape[-1])
    swapped = torch.arange(C.shape[-1]) ^ 1
    partner = C[:, torch.arange(C.shape[-1]), swapped][:, None]
    rows, total = C.square().sum(-1)[:, None] - partner.square(), C.sum(-1)[:, None]
    return _expected(C, p, rows * p.others_square + (total * p.query + partner * p.others).square())


def _expected(C: Tensor, p: _Prefixes, power: Tensor) -> Float[Tensor, " seeds"]:
    """The mean over prefixes and entries of power [seeds, prefixes, d] - 2 p_T C_ii + 1."""
    return (power - 2 * p.last * C.diagonal(dim1=-2, dim2=-1)[:, None] + 1).mean((-2, -1))
