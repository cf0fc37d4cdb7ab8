"""The collapsed forward over sliding windows, laid out for speed: what every training step runs.

Batch axes come last ([width, width, seeds, windows]), so that each scalar of a layer is one long vector and
`torch.compile` fuses all layers; window moments come from a prefix sum over the trajectory. The last layers apply
G_l = A_l G_0 A_l^T to vectors from right to left and never form it: that costs 3^l matrix-vector products with G_0,
fewer operations than the width^3 of forming it as long as l <= 2 (and far less memory).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

N_IMPLICIT_LAYERS = 2


def window_moments(
    tokens: Float[Tensor, "width seeds transitions"], context_length: int
) -> Float[Tensor, "width width seeds windows"]:
    """G_0 = (1/n) sum of token outer products over each window of n transitions."""
    sums = torch.nn.functional.pad((tokens[:, None] * tokens).cumsum(-1), (1, 0))
    return (sums[..., context_length:] - sums[..., :-context_length]) / context_length


def window_values(
    P: Float[Tensor, "seeds layers width width"],
    Q: Float[Tensor, "seeds layers width width"],
    G: Float[Tensor, "width width seeds windows"],
    queries: Float[Tensor, "d seeds windows"],
    n_layers: int,
) -> Float[Tensor, "seeds windows"]:
    """The last entry of every window's query token after n_layers (P, Q: one layer where looped), with one head."""
    return last_entries(P.permute(1, 2, 3, 0)[..., None], Q.permute(1, 2, 3, 0)[..., None], G, queries, n_layers)


def last_entries(
    p: Float[Tensor, "layers width width seeds #windows"],
    q: Float[Tensor, "layers width width seeds #windows"],
    G: Float[Tensor, "width width seeds windows"],
    queries: Float[Tensor, "d seeds windows"],
    n_layers: int,
) -> Float[Tensor, "seeds windows"]:
    """`window_values` of weights whose batch axes come last too: every window may have its own."""
    looped = len(p) == 1
    token = torch.nn.functional.pad(queries, (0, 0, 0, 0, 0, len(G) - len(queries)))

    def weights(layer: int) -> tuple[Tensor, Tensor]:
        return (p[0], q[0]) if looped else (p[layer], q[layer])

    n_explicit = max(0, n_layers - 1 - N_IMPLICIT_LAYERS)
    for layer in range(n_explicit):
        p_l, q_l = weights(layer)
        step = _product(p_l, _product(G, q_l))  # B_l - I
        token = token + _apply(step, token)
        half = _product(step, G)
        G = G + half + half.transpose(0, 1) + _product(half, step.transpose(0, 1))

    def moment(layer: int, v: Tensor) -> Tensor:
        """G_layer v."""
        if layer == n_explicit:
            return _apply(G, v)
        p_l, q_l = weights(layer - 1)
        v = v + _apply_transposed(q_l, moment(layer - 1, _apply_transposed(p_l, v)))
        v = moment(layer - 1, v)
        return v + _apply(p_l, moment(layer - 1, _apply(q_l, v)))

    for layer in range(n_explicit, n_layers - 1):
        p_l, q_l = weights(layer)
        token = token + _apply(p_l, moment(layer, _apply(q_l, token)))
    p_l, q_l = weights(n_layers - 1)
    return token[-1] + (p_l[-1] * moment(n_layers - 1, _apply(q_l, token))).sum(0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, :, None] * b[None]).sum(1)


def _apply(matrix: Tensor, v: Tensor) -> Tensor:
    return (matrix * v[None]).sum(1)


def _apply_transposed(matrix: Tensor, v: Tensor) -> Tensor:
    return (matrix * v[:, None]).sum(0)


def window_td_values(
    step_size: Float[Tensor, " seeds"],
    G: Float[Tensor, "width width seeds windows"],
    queries: Float[Tensor, "d seeds windows"],
    n_layers: int,
) -> Float[Tensor, "seeds windows"]:
    """Values after n_layers of batch TD(0) from the same moments: the paper's reference."""
    d = len(queries)
    A, b = G[:d, :d] - G[:d, d : 2 * d], G[:d, 2 * d]
    w = torch.zeros_like(b)
    for _ in range(n_layers):
        w = w + step_size[:, None] * (b - _apply(A, w))
    return (w * queries).sum(0)
