"""Markov decision processes of few states, and how much of them a myopic learner would get right.

Which family is asked decides what can be found: where greed for the next reward is nearly optimal, a policy need not
bootstrap. Shares of the attainable gain that greed earns, and of the states in which it agrees with an optimal action
against a uniformly random choice (`myopia`, gamma = .9, 300 tasks; both ways round a ring are optimal at the goal):

    family      dense    chain     tree    ring
    gain          .98      .05      .16     .00
    agreement     .89      .41      .38     .57
    random        .20      .33      .33     .57
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.decision import DecisionTasks, optimal_values, policy_values
from tasks.errors import ConfigError, require
from tasks.streams import normals, uniforms


class Shape(NamedTuple):
    """The size of a family's tasks, and the steps of an episode."""

    n_states: int
    n_actions: int
    horizon: int | None


SHAPES = {
    "ring": Shape(7, 2, None),
    "tree": Shape(15, 3, None),
    "chain": Shape(8, 3, None),
    "dense": Shape(10, 5, 10),
}


@dataclass(frozen=True)
class MDPFamily:
    """A distribution over Markov decision processes whose states are numbered in a random order of each task.

    ring: the actions lead to the next and the previous state, which is which flipped at random per state; with
    probability slip ~ U(*slip) of the task the other one is reached. Any action taken in the goal state is worth 1.
    tree: a binary tree, the three actions, in a random order per state, lead to the children and the parent (where
    there is none, nowhere); an episode starts at the root and ends with reward 1 at a hidden leaf.
    chain: every action leads one place back, nowhere, or one place ahead with probabilities Dirichlet(1) of its own; an
    episode starts at one end and ends with reward 1 at the other (few successors, after the banded tasks of OmniRL).
    dense: transitions Dirichlet(1) over all states, mean rewards N(1, 1) per state and action, unit noise; 10 steps
    from state 0 (arXiv 1611.02779).

    n_states and n_actions: None for those of SHAPES; a ring has two actions, a tree three and 2^levels - 1 states.
    """

    kind: str = "ring"
    n_states: int | None = None
    n_actions: int | None = None
    slip: tuple[float, float] = (0.0, 0.2)

    def __post_init__(self) -> None:
        require("kind", self.kind, tuple(SHAPES))
        states, actions, _ = self.shape
        if states < 3 or actions < 2:
            raise ConfigError(f"{states} states and {actions} actions; allowed: at least 3 and 2")
        if self.kind in ("ring", "tree") and actions != SHAPES[self.kind].n_actions:
            raise ConfigError(f"n_actions is {actions}; a {self.kind} has {SHAPES[self.kind].n_actions}")
        if self.kind == "tree" and (states + 1).bit_count() != 1:
            below = 2 ** ((states + 1).bit_length() - 1) - 1
            raise ConfigError(f"n_states is {states}; a full binary tree has {below} or {2 * below + 1}")
        low, high = self.slip
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"slip is {self.slip}; allowed: two probabilities, the lower one first")

    @property
    def shape(self) -> Shape:
        given = {"n_states": self.n_states, "n_actions": self.n_actions}
        return SHAPES[self.kind]._replace(**{name: size for name, size in given.items() if size is not None})

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """n tasks per seed, batch axes (seeds, n): batch `index` of the stream `purpose`."""
        make = {"ring": self._ring, "tree": self._tree, "chain": self._chain, "dense": self._dense}[self.kind]
        return make(_Draws(seeds, purpose, index, n))

    def _ring(self, draws: _Draws) -> DecisionTasks:
        states, _, horizon = self.shape
        order = draws.uniform("order", states).argsort(-1)  # the states in the order of their places
        ahead, back = (torch.empty_like(order).scatter_(-1, order, order.roll(turn, -1)) for turn in (-1, 1))
        flipped = draws.uniform("flip", states) < 0.5
        first, second = torch.where(flipped, back, ahead), torch.where(flipped, ahead, back)
        meant = torch.stack([first, second], -1)  # [seeds, n, states, actions]
        low, high = self.slip
        slip = (low + (high - low) * draws.uniform("slip"))[..., None, None, None]
        goal = draws.uniform("goal", states).argmax(-1)[..., None]
        rewards = torch.zeros(flipped.shape).scatter_(-1, goal, 1.0)
        return DecisionTasks(
            successors=torch.stack([meant, meant.flip(-1)], -1),
            probabilities=torch.cat([1 - slip, slip], -1).expand(*meant.shape, 2),
            rewards=rewards[..., None, None].expand(*meant.shape, 2),
            start=torch.full((states,), 1 / states).expand(rewards.shape),
            terminal=torch.zeros((), dtype=torch.bool).expand(rewards.shape),
            observations=tuple(range(states)),
            horizon=horizon,
        )

    def _tree(self, draws: _Draws) -> DecisionTasks:
        states, actions, horizon = self.shape
        place = torch.arange(states)
        children = 2 * place[:, None] + torch.tensor([1, 2])
        parent = ((place - 1) // 2).clamp(min=0)[:, None]
        moves = torch.cat([torch.where(children < states, children, place[:, None]), parent], -1)
        n_leaves = (states + 1) // 2
        goal = states - n_leaves + draws.uniform("goal", n_leaves).argmax(-1)
        labels = draws.uniform("labels", states, actions).argsort(-1)
        return self._reached(moves.expand_as(labels).gather(-1, labels)[..., None], None, goal, draws, horizon)

    def _chain(self, draws: _Draws) -> DecisionTasks:
        states, actions, horizon = self.shape
        moves = (torch.arange(states)[:, None] + torch.tensor([-1, 0, 1])).clamp(0, states - 1)[:, None]
        law = _dirichlet(draws.uniform("law", states, actions, 3))
        goal = torch.full(law.shape[:2], states - 1)
        return self._reached(moves.expand(law.shape), law, goal, draws, horizon)

    def _reached(
        self,
        moves: Int[Tensor, "*batch states actions k"],
        law: Float[Tensor, "*batch states actions k"] | None,
        goal: Int[Tensor, "*batch"],
        draws: _Draws,
        horizon: int | None,
    ) -> DecisionTasks:
        """Reward 1 and the end where `goal` is reached, a start at place 0; places are then given random numbers."""
        states = moves.shape[-3]
        number = draws.uniform("order", states).argsort(-1)  # of the state that stands at each place
        place = number.argsort(-1)
        own = place[..., None, None].expand(moves.shape)
        at_goal = torch.arange(states)[:, None, None] == goal[..., None, None, None]
        rewards = ((moves == goal[..., None, None, None]) & ~at_goal).float()
        after = number.gather(-1, moves.flatten(-3)).view(moves.shape)
        first = torch.nn.functional.one_hot(number[..., 0], states)
        last = torch.nn.functional.one_hot(number.gather(-1, goal[..., None])[..., 0], states)
        return DecisionTasks(
            successors=after.gather(-3, own),
            probabilities=torch.ones(()).expand(moves.shape) if law is None else law.gather(-3, own),
            rewards=rewards.gather(-3, own),
            start=first.float(),
            terminal=last.bool(),
            observations=tuple(range(states)),
            horizon=horizon,
        )

    def _dense(self, draws: _Draws) -> DecisionTasks:
        states, actions, horizon = self.shape
        law = _dirichlet(draws.uniform("law", states, actions, states))
        means = 1 + draws.normal("rewards", states, actions)
        return DecisionTasks(
            successors=torch.arange(states).expand(law.shape),
            probabilities=law,
            rewards=means[..., None].expand(law.shape),
            start=torch.eye(states)[0].expand(law.shape[:3]),
            terminal=torch.zeros((), dtype=torch.bool).expand(law.shape[:3]),
            observations=tuple(range(states)),
            horizon=horizon,
            reward_law="gaussian",
            noise=1.0,
        )


@dataclass(frozen=True)
class _Draws:
    """The randomness of a batch of tasks, by the name of what is drawn."""

    seeds: Sequence[int]
    purpose: str
    index: int
    n: int

    def uniform(self, part: str, *shape: int) -> Float[Tensor, "seeds n *shape"]:
        return uniforms(self.seeds, f"{self.purpose}/{part}", self.index, self.n, *shape)

    def normal(self, part: str, *shape: int) -> Float[Tensor, "seeds n *shape"]:
        return normals(self.seeds, f"{self.purpose}/{part}", self.index, self.n, *shape)


def _dirichlet(draws: Float[Tensor, "*batch outcomes"]) -> Float[Tensor, "*batch outcomes"]:
    """Dirichlet(1, ..., 1): exponential waiting times over their sum."""
    waits = -torch.log1p(-draws)
    return waits / waits.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Myopia:
    """How far greed for the next reward goes, over all tasks given.

    gain: (J_greedy - J_random) / (J* - J_random), of discounted returns J from the start, sums over tasks;
    agreement: the share of states in which the greedy choice is an optimal one, that of a uniform choice beside it.
    Ties are broken uniformly.
    """

    gain: float
    agreement: float
    random: float


def myopia(tasks: DecisionTasks, gamma: float) -> Myopia:
    """The policy argmax_a R(s, a) against the optimal and the uniformly random one."""
    exact = tasks.to(torch.float64)
    best = _argmax_law(optimal_values(exact, gamma))
    greedy = _argmax_law(exact.mean_rewards)
    uniform = torch.full_like(greedy, 1 / tasks.n_actions)
    optimal, myopic, random = (_returns(exact, policy, gamma) for policy in (best, greedy, uniform))
    acting = ~exact.terminal
    agreement, chance = ((policy * (best > 0)).sum(-1)[acting].mean().item() for policy in (greedy, uniform))
    return Myopia(((myopic - random).sum() / (optimal - random).sum()).item(), agreement, chance)


def _argmax_law(index: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch actions"]:
    """Uniform over the actions of the largest index; tables drawn in float32 leave ties open by as much."""
    best = index >= index.amax(-1, keepdim=True) - 1e-6
    return best / best.sum(-1, keepdim=True, dtype=index.dtype)


def _returns(
    tasks: DecisionTasks, policy: Float[Tensor, "*batch states actions"], gamma: float
) -> Float[Tensor, "*batch"]:
    """E sum_t gamma^t r_t from the first state."""
    return (tasks.start * (policy * policy_values(tasks, policy, gamma)).sum(-1)).sum(-1)
