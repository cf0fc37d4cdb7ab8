"""Policies that learn in context: a causal transformer reads what it saw, did and got, and says what to do next.

One network, three uses: `forward` with transformer_lens's hooks over a whole history, `laws` of all its prefixes at
once, and an acting learner (algorithms.acting) whose state is a key-value cache. Only the last n_ctx steps are seen:
whatever came before is forgotten, and the window is read anew at every step (the queue of arXiv 2210.14215).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from algorithms.acting import State
from models.config import ConfigError
from models.ensemble import Ensemble
from models.hooked import HookPoint
from models.policy_blocks import Block, Cache, Past, linear
from models.policy_config import PolicyConfig
from models.policy_tokens import aimed_returns, history_tokens, seen, step_tokens, token_layout
from tasks.interaction import Interaction, Step

# Written as README.md beside the weights, so that a folder pushed to the Hugging Face Hub says what it holds.
MODEL_CARD = """\
---
{{ card_data }}
---

# A policy that learns in context

An ensemble: every tensor of `model.safetensors` has the seeds in front. `config.json` names the network; in a checkout
of learnscope, `models.policy.PolicyTransformer.from_pretrained(FOLDER)` loads it.
"""


LAYERED = ("W_Q", "W_K", "W_V", "b_Q", "b_K", "b_V", "W_O", "b_O", "W_in", "b_in", "W_out", "b_out")


class PolicyTransformer(Ensemble, model_card_template=MODEL_CARD):
    """An ensemble of policies, weights as in PolicyConfig.weight_shapes; histories have axes (seeds or 1, tasks)."""

    config_type = PolicyConfig
    config: PolicyConfig

    W_E: nn.Parameter
    W_U: nn.Parameter
    b_U: nn.Parameter

    def __init__(self, config: PolicyConfig, weights: Mapping[str, Tensor]) -> None:
        """Raises ConfigError where the weights are not those that the config asks for."""
        super().__init__(config, weights)
        self.layout = token_layout(config)
        self.hook_tokens = HookPoint()  # [seeds or 1, tasks, pos, width], as layout names it
        self.hook_embed = HookPoint()  # [seeds, tasks, pos, d_model]
        self.hook_pos_embed = HookPoint()  # [seeds, 1, pos, d_model]
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.tokens_per_step = 3 if config.tokens == "separate" else 1
        self.setup()

    def forward(
        self, history: Interaction, returns: Float[Tensor, "*batch steps"] | None = None
    ) -> Float[Tensor, "seeds tasks pos d_model"]:
        """The residual stream after the last layer. `returns` still to come; by default, the config's target is asked
        for. Raises ConfigError for more than n_ctx steps (`laws` slides a window), or other observations or actions."""
        self.check(history.n_observations, history.n_actions)
        if history.n_steps > self.config.n_ctx:
            raise ConfigError(f"a history of {history.n_steps} steps; this policy sees {self.config.n_ctx} at once")
        returns = aimed_returns(history, self.config.target_return) if returns is None else returns
        return self.stream(history_tokens(self.config, history, returns), self._nothing(history.batch[1]))[0]

    def read_out(self, resid: Float[Tensor, "seeds tasks pos d_model"]) -> Float[Tensor, "seeds tasks steps actions"]:
        """The logits that a residual stream holds where observations stand (any layer's: the lens)."""
        return linear(self._decisions(resid), self.W_U, self.b_U)

    def read_values(self, resid: Float[Tensor, "seeds tasks pos d_model"]) -> Float[Tensor, "seeds tasks steps"]:
        """What the critic says of the future before each step, in units of `models.policy_objectives.advantages`.

        Raises ConfigError for a policy without a critic.
        """
        if not self.config.critic:
            raise ConfigError("this policy has no critic; its config.json has critic false")
        return linear(self._decisions(resid), self.get_parameter("W_value"), self.get_parameter("b_value"))[..., 0]

    def laws(self, history: Interaction) -> Float[Tensor, "seeds tasks steps actions"]:
        """The law of every action given what came before, all prefixes at once; histories of any length."""
        n = self.config.n_ctx
        head = torch.softmax(self.read_out(self(history.each(lambda x: x[..., :n]))), -1)
        returns = aimed_returns(history, self.config.target_return)
        tail = [head]
        for t in range(n, history.n_steps):
            window = slice(t + 1 - n, t + 1)
            resid = self(history.each(lambda x, window=window: x[..., window]), returns[..., window])
            tail.append(torch.softmax(self.read_out(resid), -1)[..., -1:, :])
        return torch.cat(tail, -2)

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        """An empty cache. Raises ConfigError for other observations or actions than the network's."""
        self.check(n_observations, n_actions)
        config = self.config
        state = {
            "tokens": like.new_zeros(*like.shape, 0, self.layout.width),
            "left": like.new_zeros(*like.shape, self.layout.width),
            "returns": torch.full_like(like, config.target_return),
        }
        return state | named(self._nothing(like.shape[1]))

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "seeds tasks actions"]:
        """Probabilities of the next action."""
        token = seen(self.config, observation, state["returns"]) + state["left"]
        return self.last_law(self.stream(token[..., None, :], self._caches(state))[0])

    def update(self, state: State, step: Step) -> State:
        """The cache with the step in it; where the window is full, that of its last n_ctx - 1 steps, read anew."""
        config, returns = self.config, state["returns"]
        new, left = step_tokens(config, step, state["left"], returns)
        tokens = torch.cat([state["tokens"], new], -2)
        if tokens.shape[-2] < config.n_ctx * self.tokens_per_step:
            pasts = self.stream(new, self._caches(state))[1]
        else:
            tokens = self._forgetful(tokens[..., self.tokens_per_step :, :])
            left = left * (config.n_ctx > 1)
            pasts = self.stream(tokens, self._nothing(step.action.shape[1]))[1]
        after = torch.where(step.done, config.target_return, returns - step.reward)
        return {"tokens": tokens, "left": left, "returns": after, **named(pasts)}

    def stream(
        self, tokens: Float[Tensor, "batch tasks pos width"], pasts: Sequence[Past]
    ) -> tuple[Float[Tensor, "seeds tasks pos d_model"], list[Past]]:
        """The residual stream of tokens that come after every layer's past, and the pasts with them."""
        weights = dict(self.named_parameters())
        tokens = self.hook_tokens(tokens.to(self.W_E)).expand(self.n_seeds, -1, -1, -1)
        first = pasts[0].k.shape[-2]
        times = torch.arange(first, first + tokens.shape[-2], device=tokens.device) // self.tokens_per_step
        x = self.hook_embed(torch.bmm(tokens.flatten(1, 2), self.W_E).unflatten(1, tokens.shape[1:3]))
        if self.config.positions == "learned":
            x = x + self.hook_pos_embed(weights["W_pos"][:, None, times])
        after = []
        for layer, (block, past) in enumerate(zip(self.blocks, pasts, strict=True)):
            x, past = block(x, {name: weights[name][:, layer] for name in LAYERED}, times, past)
            after.append(past)
        return x, after

    def last_law(self, resid: Float[Tensor, "seeds tasks pos d_model"]) -> Float[Tensor, "seeds tasks actions"]:
        """The law of the next action, where the last token holds what is seen."""
        last = layer_norm(resid[..., -1, :], resid.shape[-1:])
        return torch.softmax(linear(last, self.W_U, self.b_U), -1)

    def _decisions(self, resid: Tensor) -> Tensor:
        """The normalised stream at the tokens that hold observations."""
        return layer_norm(resid[..., :: self.tokens_per_step, :], resid.shape[-1:])

    def _forgetful(self, tokens: Tensor) -> Tensor:
        """The first token of a window says nothing of the step before it."""
        known = torch.zeros(self.layout.width, dtype=torch.bool, device=tokens.device)
        for name in ("observation", *(("return",) if self.config.returns else ())):
            known[self.layout[name]] = True
        return torch.cat([tokens[..., :1, :] * known, tokens[..., 1:, :]], -2)

    def _nothing(self, tasks: int) -> list[Past]:
        config = self.config
        empty = self.W_E.new_zeros(self.n_seeds, tasks, config.n_heads, 0, config.d_head)
        return [Cache(empty, empty)] * config.n_layers

    def _caches(self, state: State) -> list[Cache]:
        return [Cache(*(state[f"blocks.{i}.attn.{name}"] for name in "kv")) for i in range(self.config.n_layers)]

    def check(self, n_observations: int, n_actions: int) -> None:
        """Raises ConfigError for other observations or actions than the network's."""
        given, own = (n_observations, n_actions), (self.config.n_observations, self.config.n_actions)
        if given != own:
            raise ConfigError(
                f"{given[0]} observations and {given[1]} actions; this policy was made for {own[0]} and {own[1]}"
            )


def named(pasts: Sequence[Past]) -> State:
    """Keys and values by the names of their hooks."""
    return {f"blocks.{i}.attn.{name}": getattr(past, name) for i, past in enumerate(pasts) for name in "kv"}
