"""How a policy's history becomes tokens: named blocks for what is seen, done and got.

    step        token t = (observation t, action t-1, reward t-1, acted, done t-1), acted 0 where there was no step
    transition  the same, and observation t-1: what was done, where, and where it led in one token (2306.14892)
    separate    tokens 3t, 3t+1, 3t+2 = (observation t), (action t), (reward t, acted, done t)

With returns, the block `return` stands beside the observation. The law of action t is read at the observation's token.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad

from models.policy_config import PolicyConfig
from tasks.interaction import Interaction, Step
from tasks.layout import TokenLayout


def token_layout(config: PolicyConfig) -> TokenLayout:
    return TokenLayout(config.blocks)


def seen(
    config: PolicyConfig, observation: Int[Tensor, "*batch"], returns: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch width"]:
    """What a token holds before the action."""
    first = one_hot(observation, config.n_observations).to(returns)
    if not config.returns:
        return pad(first, (0, config.d_token - config.n_observations))
    return torch.cat(
        [pad(first, (0, config.d_token - config.n_observations - 1)), returns[..., None] / config.return_scale], -1
    )


def did(
    config: PolicyConfig, observation: Int[Tensor, "*batch"], action: Int[Tensor, "*batch"], like: Tensor
) -> Float[Tensor, "*batch width"]:
    """What a token holds of the action, and of where it was taken; `like` gives precision."""
    parts = [one_hot(action, config.n_actions).to(like), like.new_zeros(*like.shape, 3)]
    if config.tokens == "transition":
        parts.append(one_hot(observation, config.n_observations).to(like))
    return pad(torch.cat(parts, -1), (config.n_observations, int(config.returns)))


def got(
    config: PolicyConfig, reward: Float[Tensor, "*batch"], ended: Bool[Tensor, "*batch"]
) -> Float[Tensor, "*batch width"]:
    """What a token holds of the outcome."""
    scaled = (reward - config.reward_shift) / config.reward_scale
    outcome = torch.stack([scaled, torch.ones_like(scaled), ended.to(scaled)], -1)
    first = config.n_observations + config.n_actions
    return pad(outcome, (first, config.d_token - first - 3))


def step_tokens(
    config: PolicyConfig, step: Step, before: Float[Tensor, "*batch width"], returns: Float[Tensor, "*batch"]
) -> tuple[Float[Tensor, "*batch tokens width"], Float[Tensor, "*batch width"]]:
    """The tokens of one step, one or three, and what it leaves for the next; `before`: what the last one left."""
    known, action, outcome = _parts(config, step, returns)
    if config.tokens == "separate":
        return torch.stack([known, action, outcome], -2), torch.zeros_like(outcome)
    return (known + before)[..., None, :], action + outcome


def history_tokens(
    config: PolicyConfig, history: Interaction, returns: Float[Tensor, "*batch steps"]
) -> Float[Tensor, "*batch tokens width"]:
    """The tokens of a whole history, one or three per step; nothing was done before its first."""
    known, action, outcome = _parts(config, history, returns)
    if config.tokens == "separate":
        return torch.stack([known, action, outcome], -2).flatten(-3, -2)
    return known + pad((action + outcome)[..., :-1, :], (0, 0, 1, 0))


def _parts(config: PolicyConfig, steps: Step | Interaction, returns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What was known, what was done and what came of it."""
    known = seen(config, steps.observation, returns)
    action = did(config, steps.observation, steps.action, steps.reward)
    return known, action, got(config, steps.reward, steps.done)


def hindsight_returns(history: Interaction) -> Float[Tensor, "*batch steps"]:
    """The rewards from each step to the end of its episode or of the history: what return conditioning tells."""
    total = history.reward.cumsum(-1)
    steps = torch.arange(history.n_steps, device=total.device)
    last = torch.where(history.done, steps, history.n_steps - 1)
    end = last.flip(-1).cummin(-1).values.flip(-1)
    return total.gather(-1, end) - total + history.reward


def aimed_returns(history: Interaction, target: float) -> Float[Tensor, "*batch steps"]:
    """The target less what its episode had brought before each step: what a policy reads that is asked for a return."""
    before = history.reward.cumsum(-1) - history.reward
    steps = torch.arange(history.n_steps, device=before.device)
    start = torch.where(pad(history.done[..., :-1], (1, 0)), steps, 0).cummax(-1).values
    return target - (before - before.gather(-1, start))
