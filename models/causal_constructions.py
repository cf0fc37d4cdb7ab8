"""Causal networks whose algorithm is known: the optima of arXiv 2402.05787, for states of norm one and equal moduli.

A state entry then has modulus d^-1/2, where the paper's have modulus one: its constants are multiplied by d.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.causal import CausalTransformer
from models.causal_config import CausalConfig
from models.config import ConfigError
from tasks.layout import state_layout


def gradient_step(step_size: Float[Tensor, " seeds"], d: int) -> CausalTransformer:
    """One step of gradient descent from W = 0 on 1/2 sum_t |s_{t+1} - W s_t|^2, augmented tokens (Proposition 1).

    Q reads s_T against s_{t-1} and P writes step_size s_t: the output is step_size sum_t s_t s_{t-1}^H s_T.
    """
    layout = state_layout(d, augmented=True)
    P, Q = (step_size.new_zeros(len(step_size), 1, 1, layout.width, layout.width) for _ in range(2))
    identity = torch.eye(d, dtype=step_size.dtype)
    layout.block(P, "output", "features")[:] = step_size[:, None, None, None, None] * identity
    layout.block(Q, "previous", "features")[:] = identity
    return CausalTransformer(CausalConfig(1, d), {"P": P, "Q": Q})


def best_step_size(d: int, n_pairs: int) -> float:
    """The step size of least expected loss for one step from W = 0, shared by the prefixes with 0, ..., n_pairs pairs.

    sum_n n / sum_n (n^2 + (d - 1) n) for states with entries of modulus one, so d times that for states of norm one.
    """
    n = torch.arange(n_pairs + 1, dtype=torch.float64)
    return float(d * n.sum() / (n.square() + (d - 1) * n).sum())


def element_product(d: int, context_length: int) -> CausalTransformer:
    """The optimum for diagonal unitary W: s_{T+1} = conj(s_{T-1}) * s_T * s_T, C = I and P[T, t] = d at t = T only."""
    identity = torch.eye(d, dtype=torch.float64)[None]
    positions = d * torch.eye(context_length, dtype=torch.float64)[None]
    return _plain(identity, positions)


def trace_relation(d: int, context_length: int) -> CausalTransformer:
    """The optimum for d/2 rotations: s_{T+1} = 2 cos(theta) s_T - s_{T-1} in each plane, from d/2 heads.

    C has blocks of ones, P[T, T] = d and P[T, T-1] = -d/2.
    """
    planes = torch.eye(d // 2, dtype=torch.float64).repeat_interleave(2, -1)[None]
    last = torch.eye(context_length, dtype=torch.float64)
    return _plain(planes, d * (last - last.roll(-1, -1).tril() / 2)[None])


def positional_encoding(P: Float[Tensor, "seeds n n"]) -> CausalTransformer:
    """Attention with one trivial head over numbers of modulus one: all it has learned stands in P."""
    return _plain(torch.ones(len(P), 1, 1, dtype=P.dtype), P)


def _plain(heads: Float[Tensor, "seeds heads d"], P: Float[Tensor, "seeds n n"]) -> CausalTransformer:
    config = CausalConfig(1, heads.shape[-1], augmented=False, n_heads=heads.shape[-2], context_length=P.shape[-1])
    return CausalTransformer(config, {"A": heads, "B": heads.clone(), "P": P})


def untwisted(model: CausalTransformer) -> CausalTransformer:
    """One augmented layer and head with outputs and queries multiplied by D = sign of the diagonal of P's block.

    On diagonal W with independent uniform phases the expected loss of a gradient step stays what it is: W commutes with
    D, so D changes only the signs of terms that average to zero. Training settles on any D, and on a gradient step only
    up to D. Raises ConfigError for another network.
    """
    config = model.config
    if not config.augmented or (config.n_layers, config.n_heads) != (1, 1):
        raise ConfigError("only a network with augmented tokens, one layer and one head can be untwisted")
    layout, (P, Q) = model.layout, (model.P.detach().clone(), model.Q.detach().clone())
    signs = layout.block(P, "output", "features").diagonal(dim1=-2, dim2=-1).sign()
    P[..., layout["output"], :] *= signs[..., None]
    for name in ("features", "previous"):
        Q[..., layout[name]] *= signs[..., None, :]
    return CausalTransformer(config, {"P": P, "Q": Q})
