"""Influence kernels: how much every reward of a history still moves the odds of the next action.

    I_b(j) = d ln pi(b | history) / d r_j

by automatic differentiation through the reward channel, so of policies and learners alike. Logarithms of laws are known
up to what all actions share, so only differences count: of the arm that was pulled to the others, and among the others.

    empirical mean         1 / (n T), flat, its own arm only          (n pulls of the arm, T the temperature)
    posterior mean         1 / ((n + k) T)
    constant step alpha    alpha (1 - alpha)^lag / T, lag the later pulls of the same arm
    forgetting             geometric in all later pulls
    Thompson, gradient     other arms among each other, too
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import ActingLearner, remember
from algorithms.bandit import log_law
from models.policy import PolicyTransformer
from tasks.interaction import Interaction
from tasks.streams import uniforms

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


def influence(law: NextLaw, history: Interaction, n_seeds: int) -> Float[Tensor, "seeds tasks steps actions"]:
    """d ln pi(b) / d r_j of every action b and every reward of the history; zero where the law has no slope."""
    reward = history.reward.expand(n_seeds, *history.reward.shape[1:]).clone().requires_grad_()
    every = history.each(lambda x: x.expand(n_seeds, *x.shape[1:]))
    said = log_law(law(Interaction(**{**vars(every), "reward": reward})))
    if not said.requires_grad:
        return torch.zeros(*reward.shape, said.shape[-1], dtype=reward.dtype)
    # histories do not meet, so the gradient of a sum over them holds that of each
    slopes = [torch.autograd.grad(each.sum(), reward, retain_graph=True)[0] for each in said.unbind(-1)]
    return torch.stack(slopes, -1)


def on_own_arm(
    kernel: Float[Tensor, "seeds tasks steps actions"], action: Int[Tensor, "#seeds tasks steps"]
) -> Float[Tensor, "seeds tasks steps"]:
    """d (z_a - mean of the other z) / d r_j, a the arm that was pulled for r_j."""
    own = kernel.gather(-1, action.expand(kernel.shape[:-1])[..., None])[..., 0]
    return own - (kernel.sum(-1) - own) / (kernel.shape[-1] - 1)


def among_others(
    kernel: Float[Tensor, "seeds tasks steps actions"], action: Int[Tensor, "#seeds tasks steps"]
) -> Float[Tensor, "seeds tasks steps"]:
    """Root mean square over the other arms b of d (z_b - mean of the other z) / d r_j: zero unless arms are coupled.

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
