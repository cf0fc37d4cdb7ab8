"""Attention that does not collapse, without hooks and for windows with one query: what its training steps run.

Queries are no keys, so the last layer updates the query alone; behind the plain query mask the products with it are
left out, and merged weights are applied on the narrow side of the pattern.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import LinearTransformerConfig, Mask
from models.linear import LinearTransformer
from models.networks import Network
from models.value_transformer import ValueTransformer, mlp_weights
from tasks.layout import Prompt


def attended_values(model: Network, prompt: Prompt) -> Float[Tensor, "seeds windows"]:
    """model.predict for prompts whose one query comes last, batch axes (seeds, windows), without hooks if it can be."""
    if isinstance(model, ValueTransformer):
        layers = [model.layer(i) for i in range(model.config.n_layers)]
        return model.config.readout_sign * _last_entry(prompt.tokens, layers, "softmax")
    if isinstance(model, LinearTransformer) and is_plain(model.config):
        P, Q = model.P[:, None, :, 0], model.Q[:, None, :, 0]
        layers = [{"P": P[:, :, i % P.shape[2]], "Q": Q[:, :, i % Q.shape[2]]} for i in range(model.config.n_layers)]
        return model.config.readout_sign * _last_entry(prompt.tokens, layers, model.config.activation)
    return model.predict(prompt)[..., 0, 0]


def is_plain(config: LinearTransformerConfig) -> bool:
    """One head behind the query mask, and attention that is not linear (that has a faster forward still)."""
    return config.activation != "linear" and config.masks == (Mask(),)


def _last_entry(x: Tensor, layers: list[dict[str, Tensor]], activation: str) -> Float[Tensor, "seeds windows"]:
    """The last entry of the query, which is the last token, after all layers; their weights [seeds, 1, ...]."""
    for i, weights in enumerate(layers):
        last = i == len(layers) - 1
        x = (x[..., -1:, :] if last else x) + _attend(x, weights["P"], weights["Q"], activation, last=last)
        if "W_in" in weights:
            w_in, b_in, w_out, b_out = mlp_weights(weights)
            x = x + _times(torch.relu(_times(x, w_in) + b_in), w_out) + b_out
    return x[..., 0, -1]


def _attend(x: Tensor, P: Tensor, Q: Tensor, activation: str, *, last: bool) -> Tensor:
    """What a layer adds to every token; where `last`, to the query alone."""
    keys, n = x[..., :-1, :], x.shape[-2] - 1
    if activation == "softmax-over-queries":  # all other tokens compete with the query for a key
        pattern = torch.softmax(keys @ _times(x, Q.mT).mT, -1).mT / n
        pattern = pattern[..., n:, :] if last else pattern
    else:
        scores = _times(x[..., n:, :] if last else x, Q.mT) @ keys.mT
        pattern = torch.softmax(scores, -1) if activation == "softmax" else torch.relu(scores) / n
    return _times(pattern @ keys, P.mT)


def _times(x: Tensor, matrix: Float[Tensor, "seeds 1 d e"]) -> Tensor:
    """x @ matrix, as one product per seed: the gradient of the matrix is then one product too."""
    return (x.flatten(1, 2) @ matrix[:, 0]).unflatten(1, x.shape[1:3])
