"""The subject of the value-estimator studies: attention with merged weights P and Q, one ensemble member per seed.

In the papers' column form a layer is Z <- Z + (1/n) sum_h P_h Z M_h act(Z^T Q_h Z) (arXiv 2405.13861, eq. 3). Here
tokens are rows, X = Z^T, and names and axes are transformer_lens's: scores[j, i] = (Q x_j) . x_i, query token j, key
token i.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from models.config import ConfigError, LinearTransformerConfig, Mask
from models.files import read_tensors, require_finite, write_json, write_tensors
from models.folder import read_json
from models.hooked import HookedRootModule, HookPoint
from tasks.layout import Prompt, TokenLayout, labelled_layout, transition_layout

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def layout_of(config: LinearTransformerConfig) -> TokenLayout:
    """The tokens that a network of this config reads."""
    if config.tokens == "labelled":
        return labelled_layout(config.d_features)
    discount = config.gamma if config.discounted else 1.0
    return transition_layout(config.d_features, discount=discount, memory=config.memory)


def mask_matrix(mask: Mask, n: int, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """M over the n context tokens; the rows and columns of query tokens are zero and left out."""
    i, j = torch.arange(n)[:, None], torch.arange(n)
    if mask.kind == "centred":
        return torch.eye(n, dtype=dtype) - (i <= j).to(dtype) / (j + 1)
    return torch.where(j <= i, torch.tensor(mask.lam, dtype=dtype) ** (i - j).clamp(min=0), 0.0)


class Attention(nn.Module):
    """The hook points of one attention layer, named as in transformer_lens."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_q = HookPoint()  # [seeds, tasks, head, pos, d_model]: Q x
        self.hook_k = HookPoint()  # the same: x, merged weights leave keys as they are
        self.hook_v = HookPoint()  # the same: P x
        self.hook_attn_scores = HookPoint()  # [seeds, tasks, head, query_pos, key_pos]
        self.hook_pattern = HookPoint()  # the same, after activation, mask and 1/n
        self.hook_z = HookPoint()  # [seeds, tasks, head, pos, d_model]

    def forward(self, x: Tensor, p: Tensor, q: Tensor, mixing: Tensor, activation: str, is_context: Tensor) -> Tensor:
        """x [seeds, tasks, pos, d_model]; p, q [seeds, 1, head, d_model, d_model]; mixing [head, key, key]."""
        keys = self.hook_k(x[:, :, None].expand(-1, -1, q.shape[2], -1, -1))
        queries = self.hook_q(keys @ q.mT)
        values = self.hook_v(keys @ p.mT)
        scores = self.hook_attn_scores(queries @ keys.mT)
        n = int(is_context.sum())
        if activation == "softmax":  # the standard one, over context keys; it needs no 1/n
            weights = torch.softmax(scores.masked_fill(~is_context, -torch.inf), -1)
        elif activation == "softmax-over-queries":
            weights = torch.softmax(scores, -2) / n
        else:
            weights = (torch.relu(scores) if activation == "relu" else scores) / n
        pattern = self.hook_pattern(weights @ mixing.mT)
        return self.hook_z(pattern @ values).sum(2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.hook_resid_pre = HookPoint()  # [seeds, tasks, pos, d_model]
        self.hook_attn_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, x: Tensor, *attention: Tensor | str) -> Tensor:
        x = self.hook_resid_pre(x)
        return self.hook_resid_post(x + self.hook_attn_out(self.attn(x, *attention)))


# Written as README.md beside the weights, so that a folder pushed to the Hugging Face Hub says what it holds.
MODEL_CARD = """\
---
{{ card_data }}
---

# A transformer with merged attention weights

`model.safetensors` holds P and Q, [seeds, layers, width, width] (with a heads axis before width where there are several
heads); `config.json` says how they are read. A layer is Z <- Z + (1/n) sum_h P_h Z M_h act(Z^T Q_h Z), as in
[arXiv 2405.13861](https://arxiv.org/abs/2405.13861). In a checkout of learnscope,

    learnscope inspect FOLDER --task boyan-chain

says which learning algorithm the network runs in context, and `LinearTransformer.from_pretrained(FOLDER)` loads it.
"""


class LinearTransformer(HookedRootModule, PyTorchModelHubMixin, model_card_template=MODEL_CARD):
    """An ensemble of attention-only transformers with merged weights.

    P, Q: [seeds, layers, heads, width, width], one layer where the config says looped. Calling it runs the hooked
    forward, layer by layer; `models.collapsed` computes the same predictions without the context axis, for training.
    """

    def __init__(self, config: LinearTransformerConfig, P: Tensor, Q: Tensor) -> None:
        """Raises ConfigError where P and Q are no floating-point weights, or their shapes are not the config's."""
        super().__init__()
        expected = (config.n_weight_layers, len(config.masks), config.width, config.width)
        for name, weight in (("P", P), ("Q", Q)):
            if weight.dtype not in DTYPES:
                allowed = ", ".join(_name(dtype) for dtype in DTYPES)
                raise ConfigError(f"{name} holds {_name(weight.dtype)}; floating point is needed: {allowed}")
            if weight.ndim != 5 or tuple(weight.shape[1:]) != expected:
                raise ConfigError(
                    f"{name} has shape {list(weight.shape)}; {'a looped' if config.looped else 'a'} network with "
                    f"n_layers {config.n_layers}, d_features {config.d_features} and {len(config.masks)} head(s) needs "
                    f"[seeds, {', '.join(map(str, expected))}] (the heads axis may be left out where it is 1)"
                )
        if P.shape != Q.shape:
            raise ConfigError(f"P has {P.shape[0]} seeds and Q has {Q.shape[0]}; they must agree")
        if not len(P):
            raise ConfigError("P and Q have 0 seeds; they need at least one")
        if P.dtype != Q.dtype:
            raise ConfigError(f"P holds {_name(P.dtype)} and Q {_name(Q.dtype)}; they must agree")
        self.config = config
        self.layout = layout_of(config)
        self.P = nn.Parameter(P)
        self.Q = nn.Parameter(Q)
        self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
        self.setup()

    def _save_pretrained(self, save_directory: Path) -> None:
        """config.json and model.safetensors; the heads axis is left out of the file where there is one head."""
        one_head = len(self.config.masks) == 1
        weights = {name: w[:, :, 0] if one_head else w for name, w in (("P", self.P), ("Q", self.Q))}
        write_tensors(save_directory / "model.safetensors", weights, {"format": "pt"})
        write_json(save_directory / "config.json", self.config.to_json())

    @classmethod
    def _from_pretrained(cls, *, model_id: str | Path, **_: Any) -> LinearTransformer:
        return cls.from_folder(Path(model_id))

    @classmethod
    def from_folder(cls, folder: Path) -> LinearTransformer:
        """Reads config.json and model.safetensors. Raises ArtifactError or ConfigError, one line that names the file.

        from_pretrained does the same, but reads config.json before us and breaks on one that is damaged.
        """
        config_path, weights_path = folder / "config.json", folder / "model.safetensors"
        data = read_json(config_path)
        try:
            config = LinearTransformerConfig.from_json(data)
        except ConfigError as error:
            raise ConfigError(f"{config_path}: {error}") from error
        weights, _metadata = read_tensors(weights_path)
        if missing := {"P", "Q"} - weights.keys():
            raise ConfigError(f"{weights_path} lacks {' and '.join(sorted(missing))}; it has {sorted(weights)}")
        P, Q = (w[:, :, None] if w.ndim == 4 else w for w in (weights["P"], weights["Q"]))
        if "tokens" not in data.get("prompt", {}) and P.shape[-1] == config.d_features + 1:
            config = replace(config, tokens="labelled")  # no token of transitions is so narrow
        try:
            model = cls(config, P, Q)
        except ConfigError as error:
            raise ConfigError(f"{weights_path}: {error}") from error
        require_finite(weights_path, {"P": P, "Q": Q})
        return model

    @property
    def n_seeds(self) -> int:
        return self.P.shape[0]

    def deeper(self, factor: int) -> LinearTransformer:
        """The same weights applied `factor` times as often. Raises ConfigError where every layer has its own."""
        if factor > 1 and not self.config.looped:
            raise ConfigError(
                f"looped is False: layers with weights of their own cannot run {factor} times; allowed: once"
            )
        config = replace(self.config, n_layers=factor * self.config.n_layers)
        return LinearTransformer(config, self.P.detach(), self.Q.detach())

    def forward(self, prompt: Prompt) -> Float[Tensor, "seeds tasks pos d_model"]:
        """The residual stream after the last layer for prompts with batch axes (seeds or 1, tasks)."""
        x = prompt.tokens.expand(self.n_seeds, *prompt.tokens.shape[1:])
        mixing = self._mixing(prompt)
        for layer, block in enumerate(self.blocks):
            weights = 0 if self.config.looped else layer
            p, q = self.P[:, None, weights], self.Q[:, None, weights]
            x = block(x, p, q, mixing, self.config.activation, prompt.is_context)
        return x

    def predict(self, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
        """Predicted values of the queries: readout_sign times their last entry (TF_L of section 3)."""
        if self.config.activation == "softmax-over-queries" and len(prompt.queries) > 1:
            # the query tokens of one prompt would compete in the softmax
            return self.predict(prompt.one_query_each()).unflatten(1, (-1, len(prompt.queries)))[..., 0, :]
        return self.read_out(self(prompt), prompt)

    def read_out(self, resid: Tensor, prompt: Prompt) -> Float[Tensor, "... queries 1"]:
        """The predictions that a residual stream [..., pos, d_model] holds (any layer's: the lens)."""
        return self.config.readout_sign * resid[..., prompt.queries, -1:]

    def _mixing(self, prompt: Prompt) -> Tensor:
        """[heads, pos, pos] every head's mask, zero where a token is a query."""
        context = torch.nonzero(prompt.is_context)[:, 0]
        masks = [mask_matrix(mask, len(context), prompt.tokens.dtype) for mask in self.config.masks]
        mixing = prompt.tokens.new_zeros(len(masks), *[prompt.tokens.shape[-2]] * 2)
        mixing[:, context[:, None], context] = torch.stack(masks).to(mixing)
        return mixing


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def xavier_normal(
    config: LinearTransformerConfig, draws: Float[Tensor, "seeds 2 layers heads width width"]
) -> tuple[Tensor, Tensor]:
    """Initial P and Q from N(0, 1) draws: Xavier normal with gain 0.1, over the depth where not looped."""
    gain = 0.1 if config.looped else 0.1 / config.n_layers
    scaled = draws * gain / config.width**0.5  # std = gain sqrt(2 / (fan_in + fan_out))
    return scaled[:, 0].clone(), scaled[:, 1].clone()
