"""A value estimator of standard parts: softmax attention over keys, then an MLP, both added to the residual stream.

    x_j <- x_j + P sum_i softmax_i(x_i . Q x_j) x_i        i over context tokens
    x_j <- x_j + W_out^T relu(W_in^T x_j + b_in) + b_out

The tokens are the residual stream, as in models.linear, and the prediction is again minus the query's last entry; there
is no layer norm. Names and axes are transformer_lens's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.config import ValueTransformerConfig
from models.ensemble import Ensemble
from models.hooked import HookPoint
from tasks.layout import Prompt, transition_layout


class SoftmaxAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_q = HookPoint()  # [seeds, tasks, pos, d_model]: Q x
        self.hook_v = HookPoint()  # the same: P x
        self.hook_attn_scores = HookPoint()  # [seeds, tasks, query_pos, key_pos]
        self.hook_pattern = HookPoint()  # the same, after the softmax

    def forward(self, x: Tensor, p: Tensor, q: Tensor, is_context: Tensor) -> Tensor:
        """x [seeds, tasks, pos, d_model]; p, q [seeds, 1, d_model, d_model]."""
        scores = self.hook_attn_scores(self.hook_q(x @ q.mT) @ x.mT)
        pattern = self.hook_pattern(torch.softmax(scores.masked_fill(~is_context, -torch.inf), -1))
        return pattern @ self.hook_v(x @ p.mT)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_pre = HookPoint()  # [seeds, tasks, pos, d_mlp]
        self.hook_post = HookPoint()

    def forward(self, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor) -> Tensor:
        return self.hook_post(torch.relu(self.hook_pre(x @ w_in + b_in))) @ w_out + b_out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = SoftmaxAttention()
        self.mlp = MLP()
        self.hook_resid_pre = HookPoint()  # [seeds, tasks, pos, d_model], as the next four
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, x: Tensor, weights: Mapping[str, Tensor], is_context: Tensor) -> Tensor:
        x = self.hook_resid_pre(x)
        x = self.hook_resid_mid(x + self.hook_attn_out(self.attn(x, weights["P"], weights["Q"], is_context)))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(x, *mlp_weights(weights))))


class ValueTransformer(Ensemble):
    """An ensemble of transformers with MLPs; weights as in ValueTransformerConfig.weight_shapes."""

    config_type = ValueTransformerConfig
    config: ValueTransformerConfig

    def __init__(self, config: ValueTransformerConfig, weights: Mapping[str, Tensor]) -> None:
        super().__init__(config, weights)
        self.layout = transition_layout(config.d_features, discount=config.gamma)
        self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
        self.setup()

    def layer(self, layer: int) -> dict[str, Tensor]:
        """The weights of a layer, [seeds, 1, rows, columns], biases with one row: they multiply [seeds, tasks, ...]."""
        at = 0 if self.config.looped else layer
        own = {name: weight[:, None, at] for name, weight in self.named_parameters()}
        return {name: w[..., None, :] if name.startswith("b") else w for name, w in own.items()}

    def forward(self, prompt: Prompt) -> Float[Tensor, "seeds tasks pos d_model"]:
        """The residual stream after the last layer for prompts with batch axes (seeds or 1, tasks)."""
        x = prompt.tokens.expand(self.n_seeds, *prompt.tokens.shape[1:])
        for layer, block in enumerate(self.blocks):
            x = block(x, self.layer(layer), prompt.is_context)
        return x

    def predict(self, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
        """Predicted values of the queries: minus their last entry."""
        return self.read_out(self(prompt), prompt)

    def read_out(self, resid: Tensor, prompt: Prompt) -> Float[Tensor, "... queries 1"]:
        """The predictions that a residual stream [..., pos, d_model] holds (any layer's: the lens)."""
        return self.config.readout_sign * resid[..., prompt.queries, -1:]


def mlp_weights(weights: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(weights[name] for name in ("W_in", "b_in", "W_out", "b_out"))
