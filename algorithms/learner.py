"""What a learner is: a known algorithm with named, bounded constants that reads a prompt and returns a trace."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tasks.layout import Prompt


@dataclass(frozen=True)
class Trace:
    """Every intermediate step of a learner on a prompt: what probes are pointed at. Step 0 is the initialisation."""

    predictions: Inexact[Tensor, "steps *batch queries out"]
    weights: Float[Tensor, "steps *batch d"] | None = None
    internals: dict[str, Float[Tensor, "steps *batch tokens"]] = field(default_factory=dict)

    @property
    def error(self) -> Float[Tensor, "steps *batch tokens"] | None:
        """What drives the learner: TD errors or residuals, where it has any."""
        return self.internals.get("td_error", self.internals.get("residual"))


@runtime_checkable
class Learner(Protocol):
    """An algorithm as a hypothesis. Constants are tensors that broadcast against the batch axes (seeds, tasks)."""

    def __call__(self, prompt: Prompt) -> Trace:
        """The whole trace, internal quantities included."""
        ...

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        """The final predictions alone."""
        ...


@dataclass(frozen=True)
class Constant:
    """A free constant of a learner: where fits start, what they may not leave, and its shape per step.

    whole: the learner is flat between whole numbers, so that fits try all of them instead of following a slope.
    """

    low: float
    high: float
    starts: tuple[float, ...]
    per_step: bool = False
    matrix: bool = False
    whole: bool = False


def constant(
    low: float,
    high: float,
    starts: tuple[float, ...],
    *,
    per_step: bool = False,
    matrix: bool = False,
    whole: bool = False,
) -> Any:
    """Declares a free constant on a learner's dataclass; its default is the first start."""
    bounds = Constant(low, high, starts, per_step, matrix, whole)
    return field(default=starts[0], metadata={"constant": bounds})


def constants(learner: type | Any) -> dict[str, Constant]:
    """The free constants of a learner (class or instance) by field name."""
    return {f.name: f.metadata["constant"] for f in fields(learner) if "constant" in f.metadata}


def per_step(value: float | Tensor, n_steps: int, like: Tensor, *, matrix: bool = False) -> list[Tensor]:
    """A constant as one tensor per step, in the dtype of `like`: [*batch, 1] (or [*batch, d, d] with matrix=True).

    `value` is a number (a multiple of the identity, as a matrix) or a tensor [*batch, steps] ([*batch, steps, d, d])
    whose steps axis has size one where all steps share it. Raises ValueError for any size but one and n_steps.
    """
    tensor = as_constant(value, like)
    if tensor.ndim == 0:
        tensor = tensor * torch.eye(like.shape[-1], dtype=like.dtype)[None] if matrix else tensor[None]
    if not matrix:
        tensor = tensor[..., None]  # a step's constant multiplies [*batch, d]
    axis = tensor.ndim - (3 if matrix else 2)
    if tensor.shape[axis] not in (1, n_steps):
        raise ValueError(f"{tensor.shape[axis]} step constants for {n_steps} steps; give one, or one per step")
    return list(tensor.expand(*tensor.shape[:axis], n_steps, *tensor.shape[axis + 1 :]).unbind(axis))


def as_constant(value: float | Tensor, like: Tensor, trailing: int = 0) -> Tensor:
    """A constant [*batch] in the dtype of `like`, with trailing axes to multiply [*batch, ...] by."""
    tensor = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return tensor[(..., *[None] * trailing)]


@dataclass(frozen=True)
class Scaled:
    """A learner up to an unknown unit: its answers times `scale`, as where preferences have no unit of their own."""

    learner: Learner
    scale: float | Tensor

    def __call__(self, prompt: Prompt) -> Trace:
        trace = self.learner(prompt)
        return replace(trace, predictions=trace.predictions * as_constant(self.scale, trace.predictions, 2))

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        values = self.learner.predict(prompt)
        return values * as_constant(self.scale, values, 2)


def values_of(learner: Learner) -> dict[str, float | Tensor]:
    """A learner's free constants with their values, by name: what builds it again."""
    if isinstance(learner, Scaled):
        return values_of(learner.learner) | {"scale": learner.scale}
    return {name: getattr(learner, name) for name in constants(learner)}


def stack_steps(steps: list[Tensor]) -> Tensor:
    """[steps, ...] of tensors whose batch axes may still differ in size one."""
    return torch.stack(torch.broadcast_tensors(*steps))


def read_values(weights: Float[Tensor, "*batch d"], prompt: Prompt) -> Float[Tensor, "*batch queries 1"]:
    """Linear values of the query tokens: phi_q . w."""
    return prompt.layout.read(prompt.query_tokens, "features") @ weights[..., None]
