"""What happens when somebody acts: observations, actions, rewards, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One step of every task: what was seen, done and got, and where that led."""

    observation: Int[Tensor, "*batch"]
    action: Int[Tensor, "*batch"]
    reward: Float[Tensor, "*batch"]
    next_observation: Int[Tensor, "*batch"]
    done: Bool[Tensor, "*batch"]  # the episode ended here: the next step starts another one


@dataclass(frozen=True)
class Interaction:
    """Histories of many tasks, batch axes (seeds, tasks), all of one length; a task's episodes follow one another.

    Bandits have one observation, 0, and no step ends an episode. `n_observations` and `n_actions` say what could have
    been seen and done.
    """

    observation: Int[Tensor, "*batch steps"]
    action: Int[Tensor, "*batch steps"]
    reward: Float[Tensor, "*batch steps"]
    next_observation: Int[Tensor, "*batch steps"]
    done: Bool[Tensor, "*batch steps"]
    n_observations: int
    n_actions: int

    @property
    def n_steps(self) -> int:
        return self.action.shape[-1]

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.action.shape[:-1])

    def at(self, t: int) -> Step:
        return Step(*(getattr(self, field.name)[..., t] for field in fields(Step)))

    def each(self, change: Callable[[Tensor], Tensor]) -> Interaction:
        """The same change made to every tensor: a device, a slice, a permutation of steps."""
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(Step)})


def in_time(first: Interaction, second: Interaction) -> Interaction:
    """One history after the other, task by task."""
    columns = (field.name for field in fields(Step))
    return replace(first, **{name: torch.cat([getattr(first, name), getattr(second, name)], -1) for name in columns})


def interleaved(parts: Sequence[Interaction]) -> Interaction:
    """The first task of every part, then the second of every part, and so on."""
    columns = (field.name for field in fields(Step))
    stacked = {name: torch.stack([getattr(part, name) for part in parts], 2).flatten(1, 2) for name in columns}
    return replace(parts[0], **stacked)
