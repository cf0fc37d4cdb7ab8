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
from tqdm import tqdm

from tasks.decision import Environment, drawn
from tasks.interaction import Interaction, Step
from tasks.streams import uniforms

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


@torch.no_grad()
def interact(
    learner: ActingLearner,
    environment: Environment,
    n_steps: int,
    *,
    seeds: Sequence[int] = (0,),
    purpose: str,
    index: int = 0,
    progress: bool = False,
) -> Interaction:
    """The learner acts in every task for n_steps; episodes that end are followed by others.

    What is random is a function of (seed, purpose, index); seeds are the first batch axis of the environment.
    """
    draws = uniforms(seeds, purpose, index, n_steps + 1, environment.batch[1], 4).to(environment.device)
    world = environment.reset(draws[:, n_steps, :, 0])
    state = learner.start(draws[:, n_steps, :, 0], environment.n_observations, environment.n_actions)
    age = torch.zeros_like(world)
    steps: list[Step] = []
    for t in tqdm(range(n_steps), desc="acting", unit="step", disable=None if progress else True):
        seen, draw = environment.observe(world), draws[:, t]
        action = drawn(learner.law(state, seen), draw[..., 0])
        after, reward, done = environment.step(world, action, draw[..., 1:3])
        age = age + 1
        if environment.horizon is not None:
            done = done | (age >= environment.horizon)
        steps.append(Step(seen, action, reward, environment.observe(after), done))
        state = learner.update(state, steps[-1])
        world, age = torch.where(done, environment.reset(draw[..., 3]), after), torch.where(done, 0, age)
    columns = ("observation", "action", "reward", "next_observation", "done")
    parts = {name: torch.stack([getattr(step, name) for step in steps], -1) for name in columns}
    return Interaction(**parts, n_observations=environment.n_observations, n_actions=environment.n_actions)
