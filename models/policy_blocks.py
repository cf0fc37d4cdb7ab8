"""The parts of a policy transformer: causal attention with a key-value cache, a GELU MLP, layer norms before both.

    x <- x + sum_h z_h W_O_h + b_O,    z_h = sum_{j <= i} pattern_ij v_j    pattern = softmax(q k^T / sqrt(d_head))
    x <- x + W_out^T gelu(W_in^T norm(x) + b_in) + b_out

Linear attention has the scores of the keys seen so far over their number in place of the softmax. Names and axes are
transformer_lens's; scores and patterns are formed where somebody has hooked them, else the fused kernel is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from models.hooked import HookPoint
from models.policy_config import PolicyConfig
from models.rotary import rotate


@runtime_checkable
class Past(Protocol):
    """Keys and values of one layer so far, [seeds, tasks, head, pos, d_head] each."""

    def extended(self, k: Tensor, v: Tensor) -> Past:
        """With those of tokens that came after."""
        ...

    @property
    def k(self) -> Tensor: ...

    @property
    def v(self) -> Tensor: ...


@dataclass(frozen=True)
class Cache:
    """A past that stays as it is: extending makes another one."""

    k: Float[Tensor, "seeds tasks head pos d_head"]
    v: Float[Tensor, "seeds tasks head pos d_head"]

    def extended(self, k: Tensor, v: Tensor) -> Cache:
        return Cache(torch.cat([self.k, k], -2), torch.cat([self.v, v], -2)) if self.k.shape[-2] else Cache(k, v)


def linear(
    x: Float[Tensor, "seeds *rows d_in"], w: Float[Tensor, "seeds d_in d_out"], b: Float[Tensor, "seeds d_out"]
) -> Float[Tensor, "seeds *rows d_out"]:
    """Every seed's own map of all its rows, one product per seed."""
    return torch.baddbmm(b[:, None], x.flatten(1, -2), w).unflatten(1, x.shape[1:-1])


class LayerNorm(nn.Module):
    """Mean zero and variance one; no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_normalized = HookPoint()  # [seeds, tasks, pos, d_model]

    def forward(self, x: Tensor) -> Tensor:
        return self.hook_normalized(layer_norm(x, x.shape[-1:]))


class Attention(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.hook_q = HookPoint()  # [seeds, tasks, pos, head, d_head], as k, v and z
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()  # [seeds, tasks, head, query_pos, key_pos]
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()

    def forward(
        self, x: Tensor, weights: Mapping[str, Tensor], times: Int[Tensor, " pos"], past: Past
    ) -> tuple[Tensor, Past]:
        """What the layer adds for the tokens x [seeds, tasks, pos, d_model], and the past that includes them."""
        merged = torch.cat([weights[f"W_{name}"].transpose(1, 2).flatten(2) for name in "QKV"], -1)
        biases = torch.cat([weights[f"b_{name}"].flatten(1) for name in "QKV"], -1)
        heads = (3, self.config.n_heads, self.config.d_head)
        q, k, v = linear(x, merged, biases).unflatten(-1, heads).unbind(-3)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        if self.config.positions == "rotary":
            q, k = rotate(q, times), rotate(k, times)
        past = past.extended(k.transpose(-3, -2), v.transpose(-3, -2))
        z = self.hook_z(self._mixed(q.transpose(-3, -2), past.k, past.v).transpose(-3, -2))
        return linear(z.flatten(-2), weights["W_O"].flatten(1, 2), weights["b_O"]), past

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z [seeds, tasks, head, pos, d_head]; the queries are the last of the keys."""
        hooked = self.hook_attn_scores.has_hooks() or self.hook_pattern.has_hooks()
        if self.config.attention == "softmax" and not hooked and q.shape[-2] > 1:  # one query is faster written out
            return fused(q, k, v)
        visible = causal(q, k)
        scores = self.hook_attn_scores(q @ k.mT * self.config.d_head**-0.5)
        if self.config.attention == "softmax":
            pattern = torch.softmax(scores.masked_fill(~visible, -torch.inf), -1)
        else:
            pattern = scores * visible / visible.sum(-1, keepdim=True)
        return self.hook_pattern(pattern) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal softmax attention by torch's kernel, which has one batch axis and knows the mask of whole sequences."""
    mask = None if q.shape[-2] == k.shape[-2] else causal(q, k)
    flat = (q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    return scaled_dot_product_attention(*flat, attn_mask=mask, is_causal=mask is None).unflatten(0, q.shape[:2])


def causal(q: Tensor, k: Tensor) -> Bool[Tensor, "queries keys"]:
    """Which keys a query sees: those before it, and its own."""
    queries, keys = q.shape[-2], k.shape[-2]
    return torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hook_pre = HookPoint()  # [seeds, tasks, pos, d_mlp]
        self.hook_post = HookPoint()

    def forward(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        hidden = self.hook_post(gelu(self.hook_pre(linear(x, weights["W_in"], weights["b_in"]))))
        return linear(hidden, weights["W_out"], weights["b_out"])


class Block(nn.Module):
    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.ln1, self.attn, self.ln2, self.mlp = LayerNorm(), Attention(config), LayerNorm(), MLP()
        self.hook_resid_pre = HookPoint()  # [seeds, tasks, pos, d_model], as the next four
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self, x: Tensor, weights: Mapping[str, Tensor], times: Int[Tensor, " pos"], past: Past
    ) -> tuple[Tensor, Past]:
        x = self.hook_resid_pre(x)
        attended, past = self.attn(self.ln1(x), weights, times, past)
        x = self.hook_resid_mid(x + self.hook_attn_out(attended))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(self.ln2(x), weights))), past
