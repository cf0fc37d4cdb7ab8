"""What policies are trained for, as pure functions; every loss is a mean over tasks and steps, one number per seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "seeds tasks steps actions"], targets: Float[Tensor, "#seeds tasks steps actions"]
) -> Float[Tensor, " seeds"]:
    """- E sum_a target(a) log law(a): targets are one-hot actions, a source's laws, or the optimal actions."""
    return -(targets * torch.log_softmax(logits, -1)).sum(-1).mean((-2, -1))


def entropy(logits: Float[Tensor, "seeds tasks steps actions"]) -> Float[Tensor, " seeds"]:
    """Of the laws, in nats."""
    return cross_entropy(logits, torch.softmax(logits, -1))


def log_probability(
    logits: Float[Tensor, "seeds tasks steps actions"], action: Int[Tensor, "seeds tasks steps"]
) -> Float[Tensor, "seeds tasks steps"]:
    """Of the actions that were taken."""
    return torch.log_softmax(logits, -1).gather(-1, action[..., None])[..., 0]


def discounted(x: Float[Tensor, "*batch steps"], rate: float) -> Float[Tensor, "*batch steps"]:
    """sum_{k >= t} rate^(k - t) x_k, nothing after the last step."""
    n = x.shape[-1]
    lag = torch.arange(n, device=x.device)[:, None] - torch.arange(n, device=x.device)
    return x @ torch.where(lag >= 0, rate ** lag.clamp(min=0).to(x), 0.0)


def advantages(
    rewards: Float[Tensor, "*batch steps"], values: Float[Tensor, "*batch steps"], gamma: float, lam: float
) -> Float[Tensor, "*batch steps"]:
    """Generalised advantages (arXiv 1506.02438), sum_k (gamma lam)^(k-t) delta_k, of a trial that ends with its steps.

    delta_t = (1 - gamma) r_t + gamma v_{t+1} - v_t: values are discounted means of the rewards to come, on the rewards'
    own scale. Ends of episodes are no ends here: what is learnt in one is worth something in the next (RL^2).
    """
    after = torch.nn.functional.pad(values[..., 1:], (0, 1))
    return discounted((1 - gamma) * rewards + gamma * after - values, gamma * lam)


def advantages_over_others(
    rewards: Float[Tensor, "seeds tasks steps"], gamma: float
) -> Float[Tensor, "seeds tasks steps"]:
    """Discounted rewards to come less their mean over the seed's other tasks at the same step: no critic is needed."""
    returns, n = (1 - gamma) * discounted(rewards, gamma), rewards.shape[-2]
    return (returns - returns.mean(-2, keepdim=True)) * n / max(n - 1, 1)


def standardised(x: Float[Tensor, "seeds tasks steps"]) -> Float[Tensor, "seeds tasks steps"]:
    """Mean zero and variance one within every seed."""
    return (x - x.mean((-2, -1), keepdim=True)) / (x.std((-2, -1), keepdim=True) + 1e-8)


@dataclass(frozen=True)
class Experience:
    """What a policy did, as the objective reads it: actions, the probabilities that they had, how they turned out."""

    action: Int[Tensor, "seeds tasks steps"]
    log_probability: Float[Tensor, "seeds tasks steps"]
    advantage: Float[Tensor, "seeds tasks steps"]


def clipped_loss(
    logits: Float[Tensor, "seeds tasks steps actions"], experience: Experience, clip: float
) -> Float[Tensor, " seeds"]:
    """- E min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), ratio of the laws now and then (arXiv 1707.06347)."""
    ratio = (log_probability(logits, experience.action) - experience.log_probability).exp()
    limited = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * experience.advantage, limited * experience.advantage).mean((-2, -1))


def value_loss(
    values: Float[Tensor, "seeds tasks steps"], targets: Float[Tensor, "seeds tasks steps"]
) -> Float[Tensor, " seeds"]:
    """The share of the targets' variance that the critic leaves: of the same size whatever the rewards' unit."""
    return (values - targets).square().mean((-2, -1)) / (targets.var((-2, -1)) + 1e-8)
