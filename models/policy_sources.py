"""Where policies learn from: a source that acts and is imitated, optimal actions, or tasks to act in.

Batch i of n tasks is a function of (seed, i, n): fresh tasks every time, and exact to resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from algorithms.acting import ActingLearner, follow, interact
from tasks.decision import DecisionFamily, DecisionTasks, Environment, optimal_values
from tasks.errors import ConfigError, require
from tasks.interaction import Interaction, Step, in_time, interleaved
from tasks.rollout import roll_out
from tasks.streams import uniforms

Lesson = tuple[Interaction, Float[Tensor, "seeds tasks steps actions"]]
"""Histories, and the law that the policy should have had before every step."""


@runtime_checkable
class PolicySource(Protocol):
    """What a policy imitates."""

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        """Histories of n tasks per seed, and targets."""
        ...


@dataclass(frozen=True)
class Distillation:
    """Algorithm Distillation (arXiv 2210.14215): the source's own histories, and its actions or its whole laws.

    Both targets have the same optimum, the source's law; sampled actions reach it with more noise.
    """

    family: DecisionFamily
    learner: ActingLearner
    n_steps: int
    target: str = "action"

    def __post_init__(self) -> None:
        require("target", self.target, ("action", "law"))

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        tasks = self.family.draw(seeds, "train", index, n).to(device)
        history, laws = watched(self.learner, tasks, self.n_steps, seeds=seeds, purpose="train/source", index=index)
        return history, laws if self.target == "law" else one_hot(history.action, tasks.n_actions).to(laws)


@dataclass(frozen=True)
class Following:
    """A learner's law along histories that another acted: where decision pretraining has the optimal action, its law.

    With the same `actor` contexts are those of `DecisionPretraining`, bit by bit, and only the targets differ.
    """

    family: DecisionFamily
    learner: ActingLearner
    actor: ActingLearner
    n_steps: int

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        tasks = self.family.draw(seeds, "train", index, n).to(device)
        history = interact(self.actor, tasks, self.n_steps, seeds=seeds, purpose="train/context", index=index)
        return history, follow(self.learner, history).laws


@dataclass(frozen=True)
class LawDistillation:
    """A learner's law wherever it may be asked, and not only where it leads itself.

    A third of the histories each: its own; actions by one law per task (`mixed_laws`), whatever comes of them; the
    same, and half-way all tasks become others. The second half starts where it is: for tasks with one state.
    """

    family: DecisionFamily
    learner: ActingLearner
    n_steps: int

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        third, first = -(-n // 3), self.n_steps // 2
        tasks = self.family.draw(seeds, "train", index, 4 * third).to(device)
        if tasks.n_states != 1:
            raise ConfigError(f"these tasks have {tasks.n_states} states; LawDistillation joins tasks with one")
        own, spread, before, after = (tasks.select(slice(i * third, (i + 1) * third)) for i in range(4))
        law = mixed_laws(seeds, "train/mixture", index, 2 * third, tasks.n_actions).to(device)

        def acted(tasks: DecisionTasks, law: Tensor, n_steps: int, purpose: str) -> Interaction:
            return roll_out(tasks, lambda seen: law, n_steps, seeds=seeds, purpose=f"train/{purpose}", index=index)

        with torch.no_grad():
            kinds = (
                interact(self.learner, own, self.n_steps, seeds=seeds, purpose="train/source", index=index),
                acted(spread, law[:, :third], self.n_steps, "spread"),
                in_time(
                    acted(before, law[:, third:], first, "before"),
                    acted(after, law[:, third:], self.n_steps - first, "after"),
                ),
            )
            history = interleaved(kinds).each(lambda x: x[:, :n])
            return history, follow(self.learner, history).laws


@dataclass(frozen=True)
class ShuffledRewards:
    """A control: the lessons of a source, the rewards of every history in random order. Only their mean is true."""

    source: PolicySource

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        history, targets = self.source.lesson(seeds, index, n, device)
        order = uniforms(seeds, "train/shuffled-rewards", index, *history.reward.shape[1:]).argsort(-1).to(device)
        return replace(history, reward=history.reward.gather(-1, order)), targets


@dataclass(frozen=True)
class DecisionPretraining:
    """Decision pretraining (arXiv 2306.14892): the optimal action of the true task as target at every prefix.

    Contexts come from `learner`, or else from one law of actions per task, (1 - w) Dirichlet(1, ..., 1) + w (one
    action), w a multiple of .1. Where several actions are optimal the target is uniform over them. `gamma` is what
    makes an action optimal; with one state none is needed.
    """

    family: DecisionFamily
    n_steps: int
    learner: ActingLearner | None = None
    gamma: float = 0.9

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        """As `PolicySource.lesson`. Raises ConfigError for tasks whose states are not what is observed."""
        tasks = self.family.draw(seeds, "train", index, n).to(device)
        acting = {"seeds": seeds, "purpose": "train/context", "index": index}
        if self.learner is None:
            law = mixed_laws(seeds, "train/mixture", index, n, tasks.n_actions).to(device)
            history = roll_out(tasks, lambda seen: law, self.n_steps, **acting)
        else:
            history = interact(self.learner, tasks, self.n_steps, **acting)
        best = optimal_laws(tasks, self.gamma)
        where = history.observation[..., None].expand(-1, -1, -1, tasks.n_actions)
        return history, best.gather(-2, where)


@dataclass(frozen=True)
class Reinforcement:
    """Tasks in which the policy acts itself, for n_steps each."""

    family: DecisionFamily
    n_steps: int

    def tasks(self, seeds: Sequence[int], index: int, n: int, device: str) -> Environment:
        """n tasks per seed."""
        return self.family.draw(seeds, "train", index, n).to(device)


def watched(
    learner: ActingLearner, environment: Environment, n_steps: int, *, seeds: Sequence[int], purpose: str, index: int
) -> Lesson:
    """A learner's history, as `algorithms.acting.interact` makes it, and the laws by which it acted."""
    like = torch.zeros(environment.batch, device=environment.device)
    state = learner.start(like, environment.n_observations, environment.n_actions)
    laws = []

    def law(seen: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        laws.append(learner.law(state, seen))
        return laws[-1]

    def hear(step: Step) -> None:
        nonlocal state
        state = learner.update(state, step)

    history = roll_out(environment, law, n_steps, seeds=seeds, purpose=purpose, index=index, hear=hear)
    return history, torch.stack(laws, -2)


def mixed_laws(
    seeds: Sequence[int], purpose: str, index: int, n: int, n_actions: int
) -> Float[Tensor, "seeds n actions"]:
    """(1 - w) Dirichlet(1, ..., 1) + w (one action at random), w in {0, .1, ..., 1}: a law of actions per task."""
    draws = uniforms(seeds, purpose, index, n, n_actions + 2)
    spread = -torch.log1p(-draws[..., :n_actions])  # normalised exponentials have that law
    share = (draws[..., n_actions] * 11).floor()[..., None] / 10
    one = one_hot((draws[..., n_actions + 1] * n_actions).long(), n_actions)
    return (1 - share) * spread / spread.sum(-1, keepdim=True) + share * one


def optimal_laws(tasks: DecisionTasks, gamma: float) -> Float[Tensor, "seeds tasks states actions"]:
    """Uniform over the actions that are optimal in each state. Raises ConfigError where states are not observed."""
    if tasks.observations != tuple(range(tasks.n_states)):
        raise ConfigError("decision pretraining needs the state itself as observation; these tasks hide part of it")
    values = tasks.mean_rewards if tasks.n_states == 1 else optimal_values(tasks, gamma)
    best = (values >= values.amax(-1, keepdim=True) - 1e-6).to(tasks.start)
    return best / best.sum(-1, keepdim=True)
