"""Networks whose algorithm is known, for labelled tokens (x, y): the weights of arXiv 2306.00297.

Each function takes preconditioners [seeds, layers, d, d] (one layer for a looped network) and writes P and Q block by
block on the token's layout. Predictions are minus the query's last entry, so Q is minus the preconditioner, transposed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import LinearTransformerConfig
from models.linear import LinearTransformer, layout_of

Preconditioner = Float[Tensor, "seeds layers d d"]


def gradient_descent(C: Preconditioner, *, n_layers: int, activation: str = "linear") -> LinearTransformer:
    """The sparse family (Lemma 1): w <- w + C_l (1/n) sum_j (y_j - <w, x_j>) x_j from 0; label slots hold residuals.

    With ReLU attention and one layer this is the network of Theorem 5.
    """
    return gd_plus_plus(C, torch.zeros_like(C), n_layers=n_layers, activation=activation)


def gd_plus_plus(
    C: Preconditioner, B: Preconditioner, *, n_layers: int, activation: str = "linear"
) -> LinearTransformer:
    """The full family (Theorem 4): beside each step of gradient descent x <- x - B_l S_l C_l^T x for all tokens.

    S_l = (1/n) sum_j x_j x_j^T of the context as layer l reads it. The last layer's B changes no prediction.
    """
    config = LinearTransformerConfig(
        n_layers=n_layers, looped=C.shape[1] == 1, d_features=C.shape[-1], activation=activation, tokens="labelled"
    )
    layout = layout_of(config)
    P, Q = (torch.zeros(*C.shape[:2], 1, layout.width, layout.width, dtype=C.dtype) for _ in range(2))
    layout.block(P, "features", "features")[:] = B[:, :, None]
    layout.block(P, "label", "label")[:] = 1.0
    layout.block(Q, "features", "features")[:] = -C.mT[:, :, None]
    return LinearTransformer(config, P, Q)


def scaled_inverse(steps: Float[Tensor, "seeds layers"], covariance: Float[Tensor, "d d"]) -> Preconditioner:
    """C_l = a_l Sigma^-1, where Theorems 3 and 4 find (nearly) stationary networks."""
    return steps[..., None, None] * torch.linalg.inv(covariance)


def scaled_identity(scales: Float[Tensor, "seeds layers"], d: int) -> Preconditioner:
    """B_l = b_l I."""
    return scales[..., None, None] * torch.eye(d, dtype=scales.dtype)
