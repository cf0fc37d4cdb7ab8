"""Causal linear attention over the states of a sequence, plain or augmented (Sander et al., arXiv 2402.05787).

The prediction of s_{T+1} from the prefix s_1, ..., s_T is what the layers have added to the block `output`, zero at
first. There are two families of weights:

    augmented   e_t = (0, s_t, s_{t-1});  e_T <- e_T + sum_h sum_{t <= T} (e_t^H Q_h e_T) P_h e_t
    plain       e_t = s_t;  output = sum_h sum_{t <= T} P[T, t] (e_{T-1}^H diag(a_h) e_t) diag(b_h) e_t

The query of the plain network is the last token but one, and with C = sum_h b_h a_h^T it predicts

    sum_t P[T, t] s_t * C (conj(s_{T-1}) * s_t)        * entry by entry

P and Q are merged weights as in models.linear, but nothing is divided by the number of tokens; the plain network's P is
the factor of its positional encoding, as in the paper. Names and axes are transformer_lens's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn

from models.causal_config import CausalConfig
from models.config import ConfigError
from models.ensemble import Ensemble
from models.hooked import HookPoint
from tasks.layout import Prompt, TokenLayout, state_layout

# Written as README.md beside the weights, so that a folder pushed to the Hugging Face Hub says what it holds.
MODEL_CARD = """\
---
{{ card_data }}
---

# Causal linear attention that continues sequences in context

An ensemble: every tensor of `model.safetensors` has the seeds in front. `config.json` names the network of
[arXiv 2402.05787](https://arxiv.org/abs/2402.05787); in a checkout of learnscope,
`models.causal.CausalTransformer.from_pretrained(FOLDER)` loads it.
"""


class CausalAttention(nn.Module):
    """The hook points of one attention layer, named as in transformer_lens."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_q = HookPoint()  # [seeds, tasks, head, pos, d_model]: Q of the query token
        self.hook_k = HookPoint()  # the same: merged weights leave keys as they are
        self.hook_v = HookPoint()  # the same: P x
        self.hook_attn_scores = HookPoint()  # [seeds, tasks, head, query_pos, key_pos]
        self.hook_pattern = HookPoint()  # the same, after the positional factor, which is causal
        self.hook_z = HookPoint()  # [seeds, tasks, head, pos, d_model]

    def forward(self, x: Tensor, p: Tensor, q: Tensor, positions: Tensor, augmented: bool) -> Tensor:
        """x [seeds, tasks, pos, d_model]; p, q [seeds, 1, head, d_model, d_model]; positions [seeds, 1, 1, pos, pos]"""
        keys = self.hook_k(x[:, :, None].expand(-1, -1, q.shape[2], -1, -1))
        queries = keys @ q.mT
        if not augmented:  # the query of a prefix is its last state but one
            queries = nn.functional.pad(queries[..., :-1, :], (0, 0, 1, 0))
        scores = self.hook_q(queries) @ keys.mH
        # of query and key the earlier state is the conjugated one: s_{T-1} and s_t, or s_T and s_{t-1}
        scores = self.hook_attn_scores(scores if augmented else scores.conj())
        pattern = self.hook_pattern(scores * positions)
        return self.hook_z(pattern @ self.hook_v(keys @ p.mT)).sum(2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = CausalAttention()
        self.hook_resid_pre = HookPoint()  # [seeds, tasks, pos, d_model]
        self.hook_attn_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(self, x: Tensor, *attention: Tensor | bool) -> Tensor:
        x = self.hook_resid_pre(x)
        return self.hook_resid_post(x + self.hook_attn_out(self.attn(x, *attention)))


class CausalTransformer(Ensemble, model_card_template=MODEL_CARD):
    """An ensemble of causal linear-attention networks; weights as in CausalConfig.weight_shapes, real numbers.

    `stream` names the blocks of the residual stream: those of an augmented token; an output block before a plain one.
    """

    A: nn.Parameter
    B: nn.Parameter
    P: nn.Parameter
    Q: nn.Parameter
    config_type = CausalConfig
    config: CausalConfig

    def __init__(self, config: CausalConfig, weights: Mapping[str, Tensor]) -> None:
        """Raises ConfigError where the weights are not those that the config asks for."""
        super().__init__(config, weights)
        self.layout = state_layout(config.d_features, augmented=config.augmented)
        self.stream = TokenLayout((("output", config.d_features), ("features", config.d_features)))
        if config.augmented:
            self.stream = self.layout
        self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
        self.setup()

    @property
    def C(self) -> Float[Tensor, "seeds d d"]:
        """sum_h b_h a_h^T of a plain network."""
        return self.B.mT @ self.A

    def merged(self, layer: int) -> tuple[Tensor, Tensor]:
        """P and Q of a layer over the residual stream, [seeds, head, d_model, d_model]: values P x, queries Q x."""
        if self.config.augmented:
            return self.P[:, layer], self.Q[:, layer]
        shape = (*self.A.shape[:2], self.stream.width, self.stream.width)
        p, q = (self.A.new_zeros(shape) for _ in range(2))
        self.stream.block(p, "output", "features")[:] = torch.diag_embed(self.B)
        self.stream.block(q, "features", "features")[:] = torch.diag_embed(self.A)
        return p, q

    def positions(self, n: int) -> Float[Tensor, "seeds n n"]:
        """P[T, t] for prefixes and keys of the first n states, zero for t > T; all ones where augmented.

        Raises ConfigError for more states than a plain network has positions.
        """
        if self.config.augmented:
            return torch.ones(n, n).to(self.P).tril().expand(self.n_seeds, n, n)
        if n > self.config.context_length:
            raise ConfigError(f"a prompt of {n} states; this network has positions for {self.config.context_length}")
        return self.P[:, :n, :n].tril()

    def forward(self, prompt: Prompt) -> Inexact[Tensor, "seeds tasks pos d_model"]:
        """The residual stream after the last layer for causal prompts with batch axes (seeds or 1, tasks).

        Raises ConfigError for a prompt that is not causal or too long.
        """
        if not prompt.causal:
            raise ConfigError("the prompt is not causal; this network continues sequences (tasks.autoregressive)")
        x = nn.functional.pad(prompt.tokens, (self.stream.width - self.layout.width, 0))
        x = x.expand(self.n_seeds, *x.shape[1:])
        positions = self.positions(x.shape[-2])[:, None, None].to(x)
        for layer, block in enumerate(self.blocks):
            p, q = (w[:, None].to(x) for w in self.merged(layer))
            x = block(x, p, q, positions, self.config.augmented)
        return x

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "seeds tasks queries d"]:
        """The predicted next state of every prefix."""
        return self.read_out(self(prompt), prompt)

    def read_out(self, resid: Tensor, prompt: Prompt) -> Inexact[Tensor, "... queries d"]:
        """The predictions that a residual stream [..., pos, d_model] holds (any layer's: the lens)."""
        return self.stream.read(resid[..., prompt.queries, :], "output")
