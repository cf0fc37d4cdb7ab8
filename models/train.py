"""The trainer: multi-task training of an ensemble on sliding windows, all seeds in one loop.

Every batch is a function of (seed, index), so a run that was killed goes on from its last checkpoint and ends at
bit-identical weights (same machine, threads and mode). The paper's reference, batch TD(0) with one learned step size
per seed, trains alongside under the same loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import one_thread
from models.artifacts import is_complete
from models.attended import attended_values
from models.config import ConfigError, LinearTransformerConfig, Mask, TrainingConfig
from models.linear import LinearTransformer
from models.networks import Network, NetworkConfig, build, initial_weights
from models.objectives import MONTE_CARLO_HORIZON, monte_carlo_returns, regression_loss, td_loss
from models.training_state import (
    CHECKPOINT,
    TrainingState,
    diverged,
    finish,
    has_compiler,
    read_snapshots,
    was_compiled,
)
from models.windowed import window_moments, window_td_values, window_values
from tasks.trajectories import TaskSource, Trajectories, transition_tokens, window_prompts

TASKS_PER_CHUNK = (
    32  # tasks drawn at once: batch i of a seed's stream is one chunk, so this is part of what a seed means
)
COMPILE_FROM_UPDATES = 4000  # shorter trainings are over before compilation would be

Losses = Callable[[Trajectories], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingRecord:
    """What a finished training leaves for analysis: weights and losses every few tasks, S snapshots.

    task_count [S]; step_size [S, seeds], the reference's; loss and reference_loss [S, seeds], means since the snapshot
    before (NaN at the first); weights by name, [S, seeds, ...].
    """

    task_count: Tensor
    step_size: Tensor
    loss: Tensor
    reference_loss: Tensor
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> TrainingRecord:
        """Reads a run folder's snapshots. Raises ArtifactError where there are none or they are damaged."""
        found = read_snapshots(folder)
        series = {name: found.pop(name) for name in ("task_count", "step_size", "loss", "reference_loss")}
        return cls(**series, weights=found)

    @property
    def P(self) -> Tensor:
        """[S, seeds, layers, heads, width, width], as Q."""
        return self.weights["P"]

    @property
    def Q(self) -> Tensor:
        return self.weights["Q"]

    def diverged(self) -> dict[int, int]:
        """Position of every seed whose weights are not finite at the end -> tasks seen when that was first so."""
        return diverged(self.weights, self.task_count)


def train(
    config: NetworkConfig,
    training: TrainingConfig,
    source: TaskSource,
    seeds: Sequence[int],
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool | None = None,
) -> TrainingRecord:
    """Trains an ensemble into a run folder: skips a complete run, resumes a partial one.

    `compiled` None compiles long linear-attention trainings where there is a C++ compiler; a resumed run keeps its
    mode. Trains on one CPU thread: an update is too short to share, and threads that wait for each other cost more than
    they bring (up to 50 times, where several OpenMP runtimes spin). Raises ArtifactError where the folder holds another
    or a damaged run, ConfigError for true values of a source that knows none.
    """
    if not is_complete(folder):
        with one_thread():
            _train(config, training, source, seeds, folder, device, compiled)
    return TrainingRecord.load(folder)


def _train(
    config: NetworkConfig,
    training: TrainingConfig,
    source: TaskSource,
    seeds: Sequence[int],
    folder: Path,
    device: str,
    compiled: bool | None,
) -> None:
    started = time.time()
    state = _State.start_or_resume(config, training, seeds, folder, device, compiled)
    losses = _losses(state, training, source.gamma)
    if state.compiled:
        losses = torch.compile(losses, dynamic=False)
    tasks = _tasks(state, training, source, seeds)
    for _ in state.until(training.train_tasks, seeds, folder, lambda task: task % training.snapshot_every == 0):
        for rollouts in next(tasks):
            state.update(losses(rollouts.to(device)))
    finish(folder, config, state, seeds, started, device=device, training=asdict(training), task=repr(source))


def _tasks(
    state: _State, training: TrainingConfig, source: TaskSource, seeds: Sequence[int]
) -> Iterator[list[Trajectories]]:
    """The roll-outs of task after task, from where the progress stands; a chunk of them is drawn at once."""
    steps = _steps_per_rollout(training)
    while True:
        chunk, first = divmod(state.progress, TASKS_PER_CHUNK)
        rollouts = source.rollouts(seeds, chunk, TASKS_PER_CHUNK, training.batches_per_task, steps)
        if training.objective == "true-value" and rollouts.values is None:
            raise ConfigError("these tasks have no known true values; train with objective td or monte-carlo")
        for task in range(first, TASKS_PER_CHUNK):
            yield [rollouts[:, task, batch] for batch in range(training.batches_per_task)]


def collapses(config: NetworkConfig) -> bool:
    """Whether the batch-innermost collapsed forward computes this network: linear attention, one head, query mask."""
    return isinstance(config, LinearTransformerConfig) and (config.activation, config.masks) == ("linear", (Mask(),))


class _State(TrainingState):
    """A value estimator in training beside its reference, the learned step size of batch TD(0)."""

    UNIT = "task_count"
    LOSSES = ("loss", "reference_loss")

    def __init__(self, model: Network, training: TrainingConfig, compiled: bool) -> None:
        self.model = model
        self.step_size = torch.nn.Parameter(torch.ones(model.n_seeds, device=next(model.parameters()).device))
        weights, others = dict(model.named_parameters()), {"step_size": self.step_size}
        optimizer = torch.optim.Adam(
            [*weights.values(), self.step_size],
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        super().__init__(weights, others, optimizer, compiled)

    @classmethod
    def start_or_resume(
        cls,
        config: NetworkConfig,
        training: TrainingConfig,
        seeds: Sequence[int],
        folder: Path,
        device: str,
        compiled: bool | None,
    ) -> _State:
        model = build(config, {name: w.to(device) for name, w in initial_weights(config, seeds).items()})
        if (folder / CHECKPOINT).exists():
            state = cls(model, training, was_compiled(folder))
            state.restore(folder)
            return state
        if compiled is None:
            long = training.train_tasks * training.batches_per_task >= COMPILE_FROM_UPDATES
            compiled = collapses(config) and long and has_compiler()
        state = cls(model, training, compiled)
        state.snapshot(seeds)
        return state


def _steps_per_rollout(training: TrainingConfig) -> int:
    """States a rollout needs: the first window's n + 1, a query per window, and what the last target looks ahead."""
    ahead = {"td": 1, "true-value": 0, "monte-carlo": MONTE_CARLO_HORIZON - 1}[training.objective]
    return training.context_length + 1 + training.windows_per_batch + ahead


def _targets(rollouts: Trajectories, training: TrainingConfig, gamma: float) -> Float[Tensor, "seeds windows"]:
    """What each window's prediction is compared with: the query state's reward, true value or return."""
    first, count = training.context_length + 1, training.windows_per_batch
    if training.objective == "td":
        return rollouts.rewards[:, first : first + count]
    if training.objective == "monte-carlo":
        return monte_carlo_returns(rollouts.rewards[:, first:], gamma, MONTE_CARLO_HORIZON)
    assert rollouts.values is not None  # else `train` has refused
    return rollouts.values[:, first : first + count]


def _losses(state: _State, training: TrainingConfig, gamma: float) -> Losses:
    """The loss of every seed and of its reference, as a function of rollouts [seeds, steps]."""
    model, config, layout = state.model, state.model.config, state.model.layout
    n = training.context_length
    n_values = training.windows_per_batch + (training.objective == "td")

    def loss(values: Tensor, targets: Tensor) -> Tensor:
        return td_loss(values, targets, gamma) if training.objective == "td" else regression_loss(values, targets)

    def losses(rollouts: Trajectories) -> tuple[Tensor, Tensor]:
        targets = _targets(rollouts, training, gamma)
        tokens = transition_tokens(rollouts.features, rollouts.rewards, layout)[:, : n_values + n - 1]
        queries = rollouts.features[:, n + 1 : n + 1 + n_values].permute(2, 0, 1).contiguous()
        G = window_moments(tokens.permute(2, 0, 1).contiguous(), n)
        reference = window_td_values(state.step_size, G, queries, config.n_layers)
        if isinstance(model, LinearTransformer) and collapses(model.config):
            entry = window_values(model.P[:, :, 0], model.Q[:, :, 0], G, queries, config.n_layers)
            values = model.config.readout_sign * entry
        else:
            values = attended_values(model, window_prompts(rollouts, n, layout).select(slice(0, n_values)))
        return loss(values, targets), loss(reference, targets)

    return losses
