"""Finite decision problems: bandits (one state), Markov decision processes, grids; batched, solved exactly.

A transition has few successors in every family that matters here, so tasks list them, instead of a row over all states:
from state s under action a the process goes to successors[s, a, k] with probabilities[s, a, k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tasks.errors import ConfigError
from tasks.streams import uniforms
from tasks.trajectories import TaskBatch

RewardLaw = Literal["exact", "bernoulli", "gaussian"]


@runtime_checkable
class Environment(Protocol):
    """Many tasks acted in side by side, one step at a time; batch axes (seeds, tasks).

    Every step takes its randomness as U(0, 1) draws: whoever acts decides what is random. `horizon`: steps after
    which an episode ends whatever happens, None where only the task ends it.
    """

    @property
    def horizon(self) -> int | None: ...

    @property
    def batch(self) -> tuple[int, int]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def n_observations(self) -> int: ...

    @property
    def n_actions(self) -> int: ...

    def reset(self, uniform: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """First states."""
        ...

    def restart(
        self, state: Int[Tensor, "*batch"], done: Bool[Tensor, "*batch"], uniform: Float[Tensor, "*batch"]
    ) -> Int[Tensor, "*batch"]:
        """First states where an episode is over; elsewhere it goes on in `state`."""
        ...

    def observe(self, state: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """What is seen of a state: a number below n_observations."""
        ...

    def step(
        self, state: Int[Tensor, "*batch"], action: Int[Tensor, "*batch"], uniforms: Float[Tensor, "*batch 2"]
    ) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """The next state, the reward, and whether the task has ended there."""
        ...


@dataclass(frozen=True)
class DecisionTasks(TaskBatch):
    """Decision problems as tables; all tensors have the batch axes (seeds, tasks) in front.

    rewards: mean of each transition's reward; reward_law: the reward is that mean, a coin of that bias, or that mean
    plus `noise` times N(0, 1). start: the law of the first state. terminal: states in which an episode ends.
    observations: the number that is seen of each state, the same in all tasks.
    """

    successors: Int[Tensor, "*batch states actions k"]
    probabilities: Float[Tensor, "*batch states actions k"]
    rewards: Float[Tensor, "*batch states actions k"]
    start: Float[Tensor, "*batch states"]
    terminal: Bool[Tensor, "*batch states"]
    observations: tuple[int, ...]
    horizon: int | None = None
    reward_law: RewardLaw = "exact"
    noise: float = 0.0

    @property
    def batch(self) -> tuple[int, int]:
        return self.start.shape[0], self.start.shape[1]

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def n_states(self) -> int:
        return self.start.shape[-1]

    @property
    def n_observations(self) -> int:
        return max(self.observations) + 1

    @property
    def n_actions(self) -> int:
        return self.successors.shape[-2]

    @cached_property
    def _numbers(self) -> Int[Tensor, " states"]:
        return torch.tensor(self.observations, device=self.device)

    def reset(self, uniform: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        return drawn(self.start, uniform)

    def restart(
        self, state: Int[Tensor, "*batch"], done: Bool[Tensor, "*batch"], uniform: Float[Tensor, "*batch"]
    ) -> Int[Tensor, "*batch"]:
        return torch.where(done, self.reset(uniform), state) if bool(done.any()) else state

    def observe(self, state: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        return self._numbers[state]

    def step(
        self, state: Int[Tensor, "*batch"], action: Int[Tensor, "*batch"], uniforms: Float[Tensor, "*batch 2"]
    ) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        successors, probabilities, means = (
            table_row(table, state, action) for table in (self.successors, self.probabilities, self.rewards)
        )
        k = drawn(probabilities, uniforms[..., 0])[..., None]
        after, mean = (row.gather(-1, k)[..., 0] for row in (successors, means))
        ended = self.terminal.gather(-1, after[..., None])[..., 0]
        return after, self.sampled_reward(mean, uniforms[..., 1]), ended

    def sampled_reward(self, mean: Float[Tensor, "*any"], uniform: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The reward of that mean which a U(0, 1) draw picks."""
        if self.reward_law == "bernoulli":
            return (uniform < mean).to(mean.dtype)
        if self.reward_law == "gaussian":
            inside = uniform.clamp(torch.finfo(uniform.dtype).eps, 1 - torch.finfo(uniform.dtype).eps)
            return mean + self.noise * torch.special.ndtri(inside)
        return mean

    @property
    def mean_rewards(self) -> Float[Tensor, "*batch states actions"]:
        """R(s, a)."""
        return (self.probabilities * self.rewards).sum(-1)

    def expected(self, values: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch states actions"]:
        """sum_s' P(s' | s, a) v(s'), where an episode that has ended is worth nothing more."""
        alive = values.masked_fill(self.terminal, 0.0)
        after = alive.gather(-1, self.successors.flatten(-3)).view(self.successors.shape)
        return (self.probabilities * after).sum(-1)

    def backup(self, values: Float[Tensor, "*batch states"], gamma: float) -> Float[Tensor, "*batch states actions"]:
        """R(s, a) + gamma E v(s')."""
        return self.mean_rewards + gamma * self.expected(values)


def table_row(
    table: Float[Tensor, "*batch states actions k"] | Int[Tensor, "*batch states actions k"],
    state: Int[Tensor, "*batch"],
    action: Int[Tensor, "*batch"],
) -> Tensor:
    """[*batch, k] the entries of one state and action per task."""
    index = (state * table.shape[-2] + action)[..., None, None]
    return table.flatten(-3, -2).gather(-2, index.expand(*index.shape[:-1], table.shape[-1]))[..., 0, :]


def drawn(law: Float[Tensor, "*batch outcomes"], uniform: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """The outcome that a U(0, 1) draw picks from each law; a law may leave rounding errors of one."""
    total = law.cumsum(-1)
    return (uniform[..., None] * total[..., -1:] >= total[..., :-1]).sum(-1)


def optimal_values(
    tasks: DecisionTasks, gamma: float, tolerance: float = 1e-9
) -> Float[Tensor, "*batch states actions"]:
    """Q* by value iteration in float64, up to `tolerance` in every entry (or what float64 resolves).

    Raises ValueError where gamma allows no bound, or rewards are not finite.
    """
    require_discount(gamma)
    exact = tasks.to(torch.float64)
    rewards, values = exact.mean_rewards, torch.zeros_like(exact.start)
    if not bool(rewards.isfinite().all()):
        raise ValueError("rewards are not finite: no values to iterate towards")
    resolution = 4 * torch.finfo(torch.float64).eps
    while True:
        q = rewards + gamma * exact.expected(values)
        after = q.amax(-1)
        change = (after - values).abs().max() * gamma
        if change <= max(tolerance * (1 - gamma), resolution * float(after.abs().max())):
            return q.to(tasks.start)
        values = after


def finite_horizon_values(tasks: DecisionTasks, steps: int) -> Float[Tensor, "*batch states actions"]:
    """Q* of the undiscounted return of the next `steps` steps, the first action's."""
    rewards = q = tasks.mean_rewards
    for _ in range(steps - 1):
        q = rewards + tasks.expected(q.amax(-1))
    return q


def policy_values(
    tasks: DecisionTasks, policy: Float[Tensor, "*batch states actions"], gamma: float
) -> Float[Tensor, "*batch states actions"]:
    """Q of a policy, from its Bellman equations: v = (I - gamma P_pi)^-1 r_pi."""
    require_discount(gamma)
    reward = (policy * tasks.mean_rewards).sum(-1)
    weight = (policy[..., None] * tasks.probabilities).flatten(-2)
    alive = ~tasks.terminal.gather(-1, tasks.successors.flatten(-3)).view(weight.shape)
    kernel = torch.zeros(*reward.shape, tasks.n_states, dtype=reward.dtype, device=reward.device)
    kernel.scatter_add_(-1, tasks.successors.flatten(-2), weight * alive)
    identity = torch.eye(tasks.n_states, dtype=reward.dtype, device=reward.device)
    return tasks.backup(torch.linalg.solve(identity - gamma * kernel, reward), gamma)


def require_discount(gamma: float) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma is {gamma}; discounted values need one of at least 0 and below 1")


@runtime_checkable
class DecisionFamily(Protocol):
    """A distribution over decision problems."""

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """n tasks per seed, batch axes (seeds, n): batch `index` of the stream `purpose`."""
        ...


@dataclass(frozen=True)
class Pool:
    """The first n_tasks tasks of a family, drawn from with replacement: what a limited choice of training tasks is."""

    family: DecisionFamily
    n_tasks: int

    def __post_init__(self) -> None:
        if self.n_tasks < 1:
            raise ConfigError(f"n_tasks is {self.n_tasks}; a pool needs at least 1")

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        pool = self.family.draw(seeds, "pool", 0, self.n_tasks)
        return pool.pick((uniforms(seeds, f"{purpose}/pick", index, n) * self.n_tasks).long())


@dataclass(frozen=True)
class Renumbered:
    """The tasks of a family, the states of each numbered in a random order of its own.

    To a learner for whom states are no more than names they are the same problems; what one task shows of a state says
    nothing of the state that has its number in the next.
    """

    family: DecisionFamily

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """As `DecisionFamily.draw`. Raises ConfigError for tasks whose states are not what is observed."""
        tasks = self.family.draw(seeds, purpose, index, n)
        if tasks.observations != tuple(range(tasks.n_states)):
            raise ConfigError("states are numbered anew where they are observed; these tasks hide part of the state")
        number = uniforms(seeds, f"{purpose}/numbers", index, n, tasks.n_states).argsort(-1)  # of every old state
        old = number.argsort(-1)
        rows = old[..., None, None].expand(tasks.successors.shape)
        successors = number.gather(-1, tasks.successors.flatten(-3)).view(rows.shape)
        return replace(
            tasks,
            successors=successors.gather(-3, rows),
            probabilities=tasks.probabilities.gather(-3, rows),
            rewards=tasks.rewards.gather(-3, rows),
            start=tasks.start.gather(-1, old),
            terminal=tasks.terminal.gather(-1, old),
        )
