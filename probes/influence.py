"""Influence kernels: how much every reward of a history still moves the odds of the next action.

    I_b(j) = ln pi(b | history, r_j = 1) - ln pi(b | history, r_j = 0)

Rewards are coins, so what one does is the difference of its sides. The derivative d ln pi / d r_j is the same where the
logits are linear in rewards; of a network that never saw a reward between 0 and 1 it tells nothing. Logarithms of laws
are known up to what all actions share, so only differences count: of the arm that was pulled to the others, and among
the others.

    empirical mean         1 / (n T), flat, its own arm only          (n pulls of the arm, T the temperature)
    posterior mean         1 / ((n + k) T)
    constant step alpha    alpha (1 - alpha)^lag / T, lag the later pulls of the same arm
    forgetting             geometric in all later pulls
    Thompson, gradient     other arms among each other, too
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import ActingLearner, remember
from algorithms.bandit import log_law
from models.policy import PolicyTransformer
from tasks.interaction import Interaction
from tasks.streams import uniforms

AT_ONCE = 512  # histories

NextLaw = Callable[[Interaction], Float[Tensor, "seeds tasks actions"]]
"""The law of the next action after a whole history."""


def law_after(player: PolicyTransformer | ActingLearner) -> NextLaw:
    """What a policy or a learner would do next, where the history has led."""

    def of_policy(policy: PolicyTransformer, history: Interaction) -> Tensor:
        return policy.laws(_asked_next(history))[..., -1, :]

    def of_learner(learner: ActingLearner, history: Interaction) -> Tensor:
        return learner.law(remember(learner, history), history.next_observation[..., -1])

    if isinstance(player, PolicyTransformer):
        return partial(of_policy, player)
    return partial(of_learner, player)


def _asked_next(history: Interaction) -> Interaction:
    """One more step, of which only the observation is read: what policies are asked about."""
    longer = history.each(lambda x: torch.cat([x, torch.zeros_like(x[..., :1])], -1))
    longer.observation[..., -1] = history.next_observation[..., -1]
    return longer


@torch.no_grad()
def influence(law: NextLaw, history: Interaction) -> Float[Tensor, "seeds tasks steps actions"]:
    """I_b(j) of every action b and every reward of a history (1, tasks) whose rewards are 0 or 1."""
    n_tasks, n_steps = history.reward.shape[1:]
    turned = history.each(lambda x: x[:, :, None].expand(-1, -1, n_steps, -1).flatten(1, 2))
    itself = torch.eye(n_steps, dtype=torch.bool).repeat(n_tasks, 1)
    turned = replace(turned, reward=torch.where(itself, 1 - turned.reward, turned.reward))
    parts = torch.arange(n_tasks * n_steps).split(AT_ONCE)
    said = torch.cat([log_law(law(turned.each(lambda x, part=part: x[:, part]))) for part in parts], 1)
    gone = log_law(law(history))[:, :, None] - said.unflatten(1, (n_tasks, n_steps))
    return gone * (2 * history.reward[..., None] - 1)


def on_own_arm(
    kernel: Float[Tensor, "seeds tasks steps actions"], action: Int[Tensor, "#seeds tasks steps"]
) -> Float[Tensor, "seeds tasks steps"]:
    """That of z_a - (mean of the other z), a the arm that was pulled for r_j."""
    own = kernel.gather(-1, action.expand(kernel.shape[:-1])[..., None])[..., 0]
    return own - (kernel.sum(-1) - own) / (kernel.shape[-1] - 1)


def among_others(
    kernel: Float[Tensor, "seeds tasks steps actions"], action: Int[Tensor, "#seeds tasks steps"]
) -> Float[Tensor, "seeds tasks steps"]:
    """Root mean square over the other arms b, of that of z_b - (mean of the other z): zero unless arms are coupled.

    With two arms there is but one other, and always zero.
    """
    other = torch.nn.functional.one_hot(action, kernel.shape[-1]) == 0
    n_others = kernel.shape[-1] - 1
    mean = (kernel * other).sum(-1, keepdim=True) / n_others
    return (((kernel - mean) * other).square().sum(-1) / n_others).sqrt()


def own_lags(action: Int[Tensor, "*batch steps"]) -> Int[Tensor, "*batch steps"]:
    """How often the arm of a step is pulled again, later on."""
    steps = torch.arange(action.shape[-1])
    return ((action[..., None, :] == action[..., :, None]) & (steps > steps[:, None])).sum(-1)


def balanced_pulls(n_arms: int, pulls: int, n: int, purpose: str) -> Interaction:
    """n contexts (1, n) in which every arm is pulled equally often, in random order, its rewards fair coins."""
    steps = n_arms * pulls
    order, coins = uniforms([0], purpose, pulls, n, steps, 2).unbind(-1)
    return Interaction(
        observation=torch.zeros(1, n, steps, dtype=torch.int64),
        action=order.argsort(-1) % n_arms,
        reward=(coins < 0.5).to(coins.dtype),
        next_observation=torch.zeros(1, n, steps, dtype=torch.int64),
        done=torch.zeros(1, n, steps, dtype=torch.bool),
        n_observations=1,
        n_actions=n_arms,
    )
