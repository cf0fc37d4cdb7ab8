"""Trains looped linear attention on random walks, for values or for choices: one trainer, one prompt, many objectives.

Every batch is a function of (seed, index), so killed runs resume exactly. A policy's logits are BETA times the
network's answers. Weights start FIRST_SCALE times as large as those of value estimators: where the next reward says
nothing of what to do, small weights give no first hint of it, and policies stay at chance for long.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner, laws_everywhere, remember
from algorithms.fit import one_thread
from models.action_objectives import OBJECTIVES, POLICY_OBJECTIVES, TARGETS, Lesson, Outputs
from models.artifacts import is_complete
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from models.networks import initial_weights
from models.training_state import (
    CHECKPOINT,
    TrainingState,
    diverged,
    finish,
    read_snapshots,
)
from tasks.action_values import Walks
from tasks.decision import DecisionTasks
from tasks.interaction import Interaction
from tasks.rollout import random_walk

UPDATES_PER_CHUNK = 16  # drawn at once: a chunk is what a seed's stream counts
SNAPSHOTS = 40
BETA = 5.0
FIRST_SCALE = 4.0


@dataclass(frozen=True)
class ActionTraining:
    """What the network is trained for, on fresh tasks in every update; the learning rate falls to zero as a cosine."""

    objective: str
    context_length: int = 80
    steps: int = 2000
    tasks_per_update: int = 64
    learning_rate: float = 0.01
    clip: float = 1.0


@dataclass(frozen=True)
class ActionRecord:
    """Snapshots [S, seeds, ...] of P and Q after `step` updates, with the mean loss since the one before."""

    step: Tensor
    loss: Tensor
    P: Tensor
    Q: Tensor

    @classmethod
    def load(cls, folder: Path) -> ActionRecord:
        """Reads a run folder. Raises ArtifactError where there is no record or it is damaged."""
        found = read_snapshots(folder)
        return cls(found["step"], found["loss"], found["P"], found["Q"])

    def diverged(self) -> dict[int, int]:
        """Position of every seed whose weights or loss are not finite at the end -> the update when that was first so.

        Gradients that are not finite are dropped, so weights can stay finite where learning has stopped.
        """
        return diverged({"P": self.P[1:], "Q": self.Q[1:], "loss": self.loss[1:, :, None]}, self.step[1:])


def train_actions(
    config: LinearTransformerConfig,
    training: ActionTraining,
    walks: Walks,
    seeds: Sequence[int],
    folder: Path,
    *,
    source: ActingLearner | None = None,
    device: str = "cpu",
) -> ActionRecord:
    """Trains an ensemble into a run folder: skips a complete run, resumes a partial one.

    source: whose laws a distillation imitates. On one CPU thread, or on a GPU. Raises ArtifactError where the folder
    holds another or a damaged run.
    """
    if not is_complete(folder):
        with one_thread():
            _train(config, training, walks, seeds, folder, source, device)
    return ActionRecord.load(folder)


def first_network(config: LinearTransformerConfig, seeds: Sequence[int], device: str = "cpu") -> LinearTransformer:
    """The ensemble before training."""
    weights = {name: FIRST_SCALE * w.to(device) for name, w in initial_weights(config, seeds).items()}
    return LinearTransformer(config, weights["P"], weights["Q"])


def answers(
    P: Tensor, Q: Tensor, context: Float[Tensor, "#seeds tasks n width"], config: LinearTransformerConfig
) -> Float[Tensor, "seeds tasks d"]:
    """What a looped network says of every one-hot query: the last row of all its layers' product, by their moments.

    As `models.collapsed` with one vector in place of the whole product. What the weights multiply, they multiply for
    all tasks of a seed at once.
    """
    p, q = P[:, 0, 0], Q[:, 0, 0]
    G = (context.mT @ context / context.shape[-2]).expand(len(p), -1, -1, -1)
    moments = [G]
    for _ in range(config.n_layers - 1):
        matched = (G.flatten(1, 2) @ q).view_as(G)  # G Q
        step = (p @ matched.transpose(1, 2).flatten(2)).unflatten(2, matched.shape[1::2]).transpose(1, 2)  # P G Q
        half = step @ G
        G = G + half + half.mT + half @ step.mT
        moments.append(G)
    row = torch.zeros_like(G[..., 0, :])
    row[..., -1] = 1.0
    for G in reversed(moments):
        row = row + ((row @ p)[..., None, :] @ G)[..., 0, :] @ q
    return config.readout_sign * row[..., : config.d_features]


def _train(
    config: LinearTransformerConfig,
    training: ActionTraining,
    walks: Walks,
    seeds: Sequence[int],
    folder: Path,
    source: ActingLearner | None,
    device: str,
) -> None:
    started = time.time()
    state = _State.start_or_resume(config, training, seeds, folder, device)
    lessons, every = _lessons(state, training, walks, seeds, source, device), max(1, training.steps // SNAPSHOTS)
    for _ in state.until(training.steps, seeds, folder, lambda step: step % every == 0):
        state.step(*next(lessons))
    facts = {"training": asdict(training), "task": repr(walks), "source": repr(source)}
    finish(folder, config, state, seeds, started, device=device, **facts)


def _lessons(
    state: _State,
    training: ActionTraining,
    walks: Walks,
    seeds: Sequence[int],
    source: ActingLearner | None,
    device: str,
) -> Iterator[tuple[Tensor, Lesson]]:
    """Update after update, from where the progress stands; a chunk of them is drawn at once."""
    n, total = training.tasks_per_update, training.tasks_per_update * UPDATES_PER_CHUNK
    while True:
        index, first = divmod(state.progress, UPDATES_PER_CHUNK)
        tasks = walks.family.draw(seeds, "train", index, total).to(device)
        history = random_walk(tasks, training.context_length + 1, seeds=seeds, purpose="train/walk", index=index)
        context = walks.tokens(history, seeds, "train", index, state.model.layout)
        lesson = Lesson(tasks, walks.gamma, _target(training, tasks, walks.gamma, history, source))
        for update in range(first, UPDATES_PER_CHUNK):
            part = slice(update * n, (update + 1) * n)
            yield context[:, part], lesson.select(part)


def _target(
    training: ActionTraining, tasks: DecisionTasks, gamma: float, history: Interaction, source: ActingLearner | None
) -> Outputs | None:
    """What the network shall come near to, where that does not depend on the network."""
    if source is not None:
        read = history.each(lambda x: x[..., : training.context_length])
        return laws_everywhere(source, remember(source, read), read.batch, read.n_observations)
    target = TARGETS.get(training.objective)
    return target and target(tasks, gamma)


class _State(TrainingState):
    """A network in training."""

    UNIT = "step"
    LOSSES = ("loss",)

    def __init__(self, model: LinearTransformer, training: ActionTraining) -> None:
        self.model, self.training = model, training
        weights = {"P": model.P, "Q": model.Q}
        super().__init__(weights, {}, torch.optim.Adam(weights.values(), lr=training.learning_rate), compiled=False)
        for weight in weights.values():
            weight.register_post_accumulate_grad_hook(self._clip)

    @classmethod
    def start_or_resume(
        cls, config: LinearTransformerConfig, training: ActionTraining, seeds: Sequence[int], folder: Path, device: str
    ) -> _State:
        state = cls(first_network(config, seeds, device), training)
        if (folder / CHECKPOINT).exists():
            state.restore(folder)
        else:
            state.snapshot(seeds)
        return state

    def step(self, context: Tensor, lesson: Lesson) -> None:
        """One update of the optimiser."""
        share = self.progress / self.training.steps
        self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * (1 + math.cos(math.pi * share)) / 2
        self.update([OBJECTIVES[self.training.objective](self._outputs(context, lesson), lesson)])

    def _outputs(self, context: Tensor, lesson: Lesson) -> Outputs:
        said = answers(self.model.P, self.model.Q, context, self.model.config)
        said = said.unflatten(-1, (lesson.tasks.n_states, lesson.tasks.n_actions))
        return BETA * said if self.training.objective in POLICY_OBJECTIVES else said

    def _clip(self, weight: Tensor) -> None:
        """No seed has a gradient of a norm above `clip`; one that is not finite counts as none."""
        assert weight.grad is not None
        norm = weight.grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        weight.grad.mul_((self.training.clip / norm).clamp(max=1.0)).nan_to_num_(0.0, 0.0, 0.0)
