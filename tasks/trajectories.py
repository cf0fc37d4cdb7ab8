"""Trajectories, who makes them, and the prompts made of them: sliding windows, or one context and all states asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.errors import ConfigError
from tasks.layout import Prompt, TokenLayout

COMPONENTS = ("kernel", "features", "reward")  # what all tasks of a seed may share
Batch = TypeVar("Batch", bound="TaskBatch")


@dataclass(frozen=True)
class Trajectories:
    """What was seen along trajectories: features phi(s_t), rewards r(s_t) and, where they are known, values v(s_t)."""

    features: Float[Tensor, "*batch steps d"]
    rewards: Float[Tensor, "*batch steps"]
    values: Float[Tensor, "*batch steps"] | None = None

    def __getitem__(self, index: tuple[slice | int, ...]) -> Trajectories:
        """Indexes the batch axes."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: str) -> Trajectories:
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Trajectories:
        values = None if self.values is None else change(self.values)
        return Trajectories(change(self.features), change(self.rewards), values)


@dataclass(frozen=True)
class TaskBatch:
    """Tasks as a dataclass of tensors, all with the batch axes (seeds, tasks) in front."""

    def repeat(self: Batch, n: int) -> Batch:
        """Every task n times along a new batch axis, (seeds, tasks, n) (views, no copies)."""
        return self._each(lambda tensor: tensor.unsqueeze(2).expand(*tensor.shape[:2], n, *tensor.shape[2:]))

    def pick(self: Batch, index: Int[Tensor, "#seeds picked"]) -> Batch:
        """For every seed the tasks at its own indices, or at the same for all; batch axes (seeds, picked)."""

        def picked(tensor: Tensor) -> Tensor:
            own = _without_copies(tensor)
            rows = own if tensor.stride(1) == 0 else own[torch.arange(len(own))[:, None], index]
            return rows.expand(max(len(tensor), len(index)), index.shape[-1], *tensor.shape[2:])

        return self._each(picked)

    def select(self: Batch, index: slice) -> Batch:
        """The tasks at `index` (the last batch axis; views)."""
        return self._each(lambda tensor: tensor[:, index])

    def expanded(self: Batch, n_seeds: int) -> Batch:
        """Tasks that all seeds share, (1, tasks), once for each of n_seeds (views)."""
        return self._each(lambda tensor: tensor.expand(n_seeds, *tensor.shape[1:]))

    def to(self: Batch, target: torch.device | str | torch.dtype) -> Batch:
        """On another device, or at another precision (of floating-point tensors); what tasks share stays shared."""

        def moved(tensor: Tensor) -> Tensor:
            if isinstance(target, torch.dtype) and not tensor.is_floating_point():
                return tensor
            return _without_copies(tensor).to(target).expand(tensor.shape)

        return self._each(moved)

    def _each(self: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


@runtime_checkable
class TaskSource(Protocol):
    """A distribution over tasks as the trainer sees it: trajectories to slide over, their width and their discount."""

    @property
    def gamma(self) -> float: ...

    @property
    def d_features(self) -> int: ...

    def rollouts(self, seeds: Sequence[int], index: int, n_tasks: int, n_rollouts: int, n_steps: int) -> Trajectories:
        """n_rollouts trajectories of every training task of batch `index`, batch axes (seeds, tasks, rollouts)."""
        ...


def _without_copies(tensor: Tensor) -> Tensor:
    """The view that `expand` made this one of: what is the same all along an axis is there once."""
    return tensor[tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())]


def check_family(gamma: float, fixed: Sequence[str]) -> None:
    """Raises ConfigError, with what is allowed, for a discount or a fixed component that no family can have."""
    for name in fixed:
        if name not in COMPONENTS:
            raise ConfigError(f"no such choice {name!r}; allowed: {', '.join(COMPONENTS)}")
    if not 0 <= gamma < 1:
        raise ConfigError(f"gamma is {gamma}, discounted values need 0 <= gamma < 1")


def transition_tokens(
    features: Float[Tensor, "*batch steps d"], rewards: Float[Tensor, "*batch steps"], layout: TokenLayout
) -> Float[Tensor, "*batch transitions width"]:
    """One token (phi_t, discount * phi_{t+1}, r_t[, 0]) per transition; transitions = steps - 1 (section 3)."""
    blocks = [features[..., :-1, :], layout.discount * features[..., 1:, :], rewards[..., :-1, None]]
    tokens = torch.cat(blocks, -1)
    return torch.nn.functional.pad(tokens, (0, layout.width - tokens.shape[-1]))


def query_tokens(
    features: Float[Tensor, "*batch queries d"], layout: TokenLayout
) -> Float[Tensor, "*batch queries width"]:
    """Tokens that carry only features: phi_q above zeros."""
    return torch.nn.functional.pad(features, (0, layout.width - features.shape[-1]))


def n_windows(n_steps: int, context_length: int) -> int:
    """A window takes context_length + 2 states: n transitions, and the query one state after the last next state."""
    return n_steps - context_length - 1


def window_prompts(trajectories: Trajectories, context_length: int, layout: TokenLayout) -> Prompt:
    """Every window of trajectories [seeds, steps] as a prompt with one query; batch axes (seeds, windows).

    The query of window t is phi_{t+n+1}, which the context does not contain (section 4 of arXiv 2405.13861).
    """
    n = context_length
    tokens = transition_tokens(trajectories.features, trajectories.rewards, layout)
    windows = n_windows(trajectories.features.shape[-2], n)
    context = tokens[..., : windows + n - 1, :].unfold(-2, n, 1).mT
    query = query_tokens(trajectories.features[..., n + 1 :, :], layout)
    values = trajectories.values
    answers = torch.full_like(query[..., 0], torch.nan) if values is None else values[..., n + 1 :]
    return Prompt(
        tokens=torch.cat([context, query[..., None, :]], -2),
        layout=layout,
        queries=torch.tensor([n]),
        answers=answers[..., None, None],
        task=torch.zeros(answers.shape, dtype=torch.int64),
        weights=torch.ones_like(answers)[..., None],
    )


def state_prompt(
    trajectories: Trajectories,
    features: Float[Tensor, "seeds tasks states d"],
    values: Float[Tensor, "seeds tasks states"],
    weights: Float[Tensor, "seeds tasks states"],
    layout: TokenLayout,
) -> Prompt:
    """Trajectories [seeds, tasks, steps] as contexts of steps - 1 transitions, every state of the task as a query."""
    context = transition_tokens(trajectories.features, trajectories.rewards, layout)
    n, n_states = context.shape[-2], features.shape[-2]
    return Prompt(
        tokens=torch.cat([context, query_tokens(features, layout)], -2),
        layout=layout,
        queries=torch.arange(n, n + n_states),
        answers=values[..., None],
        task=torch.arange(features.shape[1]).expand(features.shape[:2]),
        weights=weights,
    )
