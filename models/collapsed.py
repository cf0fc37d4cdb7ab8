"""The collapsed forward: a linear transformer's prediction without the context axis.

With queries masked from the keys, a layer multiplies *every* token by the same matrix. In column form,

    Z_{l+1} = B_l Z_l,   B_l = I + (1/n) sum_h P_h G_h Q_h,   G_h = Z_l M_h Z_l^T,   G_h <- B_l G_h B_l^T

so L layers cost width x width products whatever the context length (this also proves that the prediction is linear in
the query's features: IWS and SS of arXiv 2405.13861 are one number for linear attention).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import LinearTransformerConfig
from models.linear import LinearTransformer, mask_matrix
from tasks.layout import Prompt


def moments(prompt: Prompt, config: LinearTransformerConfig) -> Float[Tensor, "*batch heads width width"]:
    """G_h = (1/n) Z M_h Z^T of the context, one per head."""
    context = prompt.context
    masks = torch.stack([mask_matrix(mask, context.shape[-2], context.dtype) for mask in config.masks])
    return context.mT[..., None, :, :] @ masks @ context[..., None, :, :] / context.shape[-2]


def layer_maps(P: Tensor, Q: Tensor, G: Tensor, n_layers: int) -> list[Tensor]:
    """The matrices A_0 = I, A_1, ..., A_L [seeds, tasks, width, width] that take an input token to layer l.

    P, Q [seeds, layers, heads, width, width]; G [seeds, tasks, heads, width, width].
    """
    identity = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device).expand(
        *torch.broadcast_shapes(P.shape[:1], G.shape[:1]), 1, -1, -1
    )
    maps = [identity]
    for layer in range(n_layers):
        p, q = P[:, None, layer % P.shape[1]], Q[:, None, layer % P.shape[1]]
        step = identity + (p @ G @ q).sum(2)
        maps.append(step @ maps[-1])
        G = step[:, :, None] @ G @ step[:, :, None].mT
    return maps


def predict(model: LinearTransformer, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
    """What `model.predict(prompt)` returns, from the moments alone; linear activation only."""
    final = layer_maps(model.P, model.Q, moments(prompt, model.config), model.config.n_layers)[-1]
    return model.config.readout_sign * prompt.query_tokens @ final[..., -1, :, None]
