"""Random walks through decision tasks as prompts: pairs (s, a) as features, all pairs or all advantages asked.

The same prompt serves networks that estimate values and networks that choose actions (in-context SARSA, arXiv
2605.05755): tokens (phi(s, a), gamma phi(s', a'), r) along a uniformly random walk, one-hot phi.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from tasks.decision import DecisionFamily, DecisionTasks, policy_values
from tasks.interaction import Interaction
from tasks.layout import Prompt, TokenLayout
from tasks.rollout import random_walk
from tasks.streams import uniforms

Hidden = Literal["nothing", "rewards", "successors"]
Asked = Literal["values", "advantages"]


@dataclass(frozen=True)
class Walks:
    """Tasks of a family, each seen through one uniformly random walk and asked for Q of that walk.

    asked: every pair, or of every state the advantages Q(s, a) - Q(s, 0) of the actions a > 0; values linear in the
    query's features answer both. hidden: what controls may not see; rewards come in random order, or tokens lack the
    next pair.
    """

    family: DecisionFamily
    gamma: float = 0.9
    asked: Asked = "values"
    hidden: Hidden = "nothing"

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """A walk through each of n tasks per seed; the answers are the walk's own action values."""
        tasks = self.family.draw(seeds, purpose, index, n)
        history = random_walk(tasks, context_length + 1, seeds=seeds, purpose=f"{purpose}/walk", index=index)
        context = self.tokens(history, seeds, purpose, index, layout)
        return self.ask(tasks, context, layout)

    def tokens(
        self, history: Interaction, seeds: Sequence[int], purpose: str, index: int, layout: TokenLayout
    ) -> Float[Tensor, "*batch n width"]:
        """The first n of n + 1 steps; the last one gives the last token its next pair."""
        phi = one_hot(pairs(history), layout.d_features).to(history.reward.dtype)
        after = layout.discount * phi[..., 1:, :] * ~history.done[..., :-1, None]
        rewards = history.reward[..., :-1]
        if self.hidden == "rewards":
            order = uniforms(seeds, f"{purpose}/order", index, *rewards.shape[1:]).argsort(-1).to(rewards.device)
            rewards = rewards.gather(-1, order)
        if self.hidden == "successors":
            after = torch.zeros_like(after)
        return torch.cat([phi[..., :-1, :], after, rewards[..., None]], -1)

    def ask(self, tasks: DecisionTasks, context: Float[Tensor, "*batch n width"], layout: TokenLayout) -> Prompt:
        """The prompt of these contexts; the answers are those of the uniform policy."""
        pairs_asked = torch.eye(layout.d_features, dtype=context.dtype, device=context.device)
        if self.asked == "advantages":
            by_state = pairs_asked.unflatten(0, (-1, tasks.n_actions))
            pairs_asked = (by_state[:, 1:] - by_state[:, :1]).flatten(0, 1)
        uniform = torch.full_like(tasks.mean_rewards, 1 / tasks.n_actions)
        answers = policy_values(tasks, uniform, self.gamma).flatten(-2)[..., None]
        queries = torch.nn.functional.pad(pairs_asked, (0, layout.width - layout.d_features))
        n, count = context.shape[-2], len(queries)
        return Prompt(
            tokens=torch.cat([context, queries.expand(*context.shape[:-2], -1, -1)], -2),
            layout=layout,
            queries=torch.arange(n, n + count),
            answers=pairs_asked @ answers,
            task=torch.arange(context.shape[1]).expand(context.shape[:2]),
            weights=torch.ones(*context.shape[:-2], count, dtype=context.dtype),
        )


def pairs(history: Interaction) -> Int[Tensor, "*batch steps"]:
    """The number s A + a of every step's state and action."""
    return history.observation * history.n_actions + history.action
