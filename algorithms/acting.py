"""Learners that act: what they remember, the law of their next action, and how a step changes both.

One recurrence serves twice. As a source, a learner acts in thousands of tasks at once (`interact`); as a hypothesis, it
follows a history that somebody else made and says what it would have done at every step (`follow`). A trained policy is
an acting learner, too: its state is its key-value cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tasks.decision import Environment
from tasks.interaction import Interaction, Step
from tasks.rollout import roll_out

State = dict[str, Tensor]
"""What a learner remembers: tensors [*batch, ...] by name, the quantities that probes are pointed at."""


@runtime_checkable
class ActingLearner(Protocol):
    """An algorithm that acts. Constants are tensors that broadcast against the batch axes (seeds, tasks)."""

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        """What it remembers before the first step; `like` gives batch axes, precision and device."""
        ...

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        """Probabilities of the next action."""
        ...

    def update(self, state: State, step: Step) -> State:
        """What it remembers after a step; the given state stays as it is."""
        ...


@dataclass(frozen=True)
class ActingTrace:
    """What a learner would have done: its law before every step, and what it remembered then."""

    laws: Float[Tensor, "*batch steps actions"]
    internals: dict[str, Shaped[Tensor, "*batch steps ..."]]


def follow(learner: ActingLearner, history: Interaction, *, internals: bool = False) -> ActingTrace:
    """The learner on a history that it did not choose; what it remembered is kept where asked for."""
    state = learner.start(history.reward[..., 0], history.n_observations, history.n_actions)
    laws: list[Tensor] = []
    kept: dict[str, list[Tensor]] = {name: [] for name in state} if internals else {}
    for t in range(history.n_steps):
        step = history.at(t)
        laws.append(learner.law(state, step.observation))
        for name, values in kept.items():
            values.append(state[name])
        state = learner.update(state, step)
    axis = len(history.batch)
    return ActingTrace(torch.stack(laws, -2), {name: torch.stack(values, axis) for name, values in kept.items()})


def interact(
    learner: ActingLearner,
    environment: Environment,
    n_steps: int,
    *,
    seeds: Sequence[int] = (0,),
    purpose: str,
    index: int = 0,
) -> Interaction:
    """The learner acts in every task for n_steps; see `tasks.rollout.roll_out`."""
    like = torch.zeros(environment.batch, device=environment.device)
    state = learner.start(like, environment.n_observations, environment.n_actions)

    def hear(step: Step) -> None:
        nonlocal state
        state = learner.update(state, step)

    return roll_out(
        environment,
        lambda seen: learner.law(state, seen),
        n_steps,
        seeds=seeds,
        purpose=purpose,
        index=index,
        hear=hear,
    )


def remember(learner: ActingLearner, history: Interaction) -> State:
    """What the learner remembers at the end of a history that it did not choose."""
    state = learner.start(history.reward[..., 0], history.n_observations, history.n_actions)
    for t in range(history.n_steps):
        state = learner.update(state, history.at(t))
    return state


def laws_everywhere(
    learner: ActingLearner, state: State, batch: tuple[int, ...], n_observations: int
) -> Float[Tensor, "*batch observations actions"]:
    """The law of the next action at every observation."""
    device = next(iter(state.values())).device
    seen = (torch.full(batch, i, device=device) for i in range(n_observations))
    return torch.stack([learner.law(state, each) for each in seen], -2)
