"""The trainer: multi-task training of an ensemble on sliding windows, all seeds in one loop.

Every batch is a function of (seed, index), so a run that was killed goes on from its last checkpoint and ends at
bit-identical weights (same machine, threads and mode). The paper's reference, batch TD(0) with one learned step size
per seed, trains alongside under the same loss.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from models.artifacts import is_complete, mark_done, write_metrics, write_provenance
from models.attended import attended_values
from models.config import ConfigError, LinearTransformerConfig, Mask, TrainingConfig
from models.files import ArtifactError, read_tensors, write_tensors
from models.linear import LinearTransformer
from models.networks import Network, NetworkConfig, build, initial_weights
from models.objectives import MONTE_CARLO_HORIZON, monte_carlo_returns, regression_loss, td_loss
from models.windowed import window_moments, window_td_values, window_values
from tasks.trajectories import TaskSource, Trajectories, transition_tokens, window_prompts

TASKS_PER_CHUNK = (
    32  # tasks drawn at once: batch i of a seed's stream is one chunk, so this is part of what a seed means
)
SECONDS_BETWEEN_CHECKPOINTS = 5.0
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
        tensors, _ = read_tensors(folder / "training.safetensors")
        found = {name.removeprefix("snapshots."): t for name, t in tensors.items() if name.startswith("snapshots.")}
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
        finite = torch.stack([w.isfinite().flatten(2).all(-1) for w in self.weights.values()]).all(0)  # [S, seeds]
        first = (~finite).int().argmax(0)
        return {seed: int(self.task_count[first[seed]]) for seed in torch.nonzero(~finite[-1])[:, 0].tolist()}


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
    if is_complete(folder):
        return TrainingRecord.load(folder)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        _train(config, training, source, seeds, folder, device, compiled)
    finally:
        torch.set_num_threads(threads)
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
    steps = _steps_per_rollout(training)
    last_checkpoint = time.monotonic()
    with tqdm(total=training.train_tasks, initial=state.task_count, unit="task", desc="training", disable=None) as bar:
        while state.task_count < training.train_tasks:
            chunk = state.task_count // TASKS_PER_CHUNK
            rollouts = source.rollouts(seeds, chunk, TASKS_PER_CHUNK, training.batches_per_task, steps)
            if training.objective == "true-value" and rollouts.values is None:
                raise ConfigError("these tasks have no known true values; train with objective td or monte-carlo")
            for task in range(min(TASKS_PER_CHUNK, training.train_tasks - state.task_count)):
                for batch in range(training.batches_per_task):
                    state.update(losses(rollouts[:, task, batch].to(device)))
                state.task_count += 1
                if state.task_count % training.snapshot_every == 0 or state.task_count == training.train_tasks:
                    state.snapshot(seeds)
                bar.update()
            if time.monotonic() - last_checkpoint > SECONDS_BETWEEN_CHECKPOINTS:
                state.write(folder)
                last_checkpoint = time.monotonic()
    state.write(folder)
    record = TrainingRecord.load(folder)
    diverged = record.diverged()
    sound = [position for position in range(len(seeds)) if position not in diverged] or list(range(len(seeds)))
    sound_weights = {name: weight.detach()[sound] for name, weight in state.model.named_parameters()}
    build(config, sound_weights).save_pretrained(folder)
    write_metrics(folder, _metric_rows(record, seeds))
    write_provenance(
        folder,
        started,
        device=device,
        compiled=state.compiled,
        training=asdict(training),
        task=repr(source),
        seeds=[seeds[position] for position in sound],
        diverged={seeds[position]: task_count for position, task_count in diverged.items()},
    )
    mark_done(folder)


def collapses(config: NetworkConfig) -> bool:
    """Whether the batch-innermost collapsed forward computes this network: linear attention, one head, query mask."""
    return isinstance(config, LinearTransformerConfig) and (config.activation, config.masks) == ("linear", (Mask(),))


def has_compiler() -> bool:
    """Whether torch.compile can find a C++ compiler for the CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl"))


class _State:
    """What changes during training: weights, optimiser, snapshots, and how many tasks have been seen."""

    def __init__(self, model: Network, training: TrainingConfig, compiled: bool) -> None:
        self.model = model
        self.compiled = compiled
        self.weights = dict(model.named_parameters())
        self.step_size = torch.nn.Parameter(torch.ones(model.n_seeds, device=next(model.parameters()).device))
        self.parameters = {**self.weights, "step_size": self.step_size}
        self.optimizer = torch.optim.Adam(
            self.parameters.values(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.task_count = 0
        self.snapshots: list[dict[str, Tensor]] = []
        self._sums = torch.zeros(2, model.n_seeds)
        self._updates = 0

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
        checkpoint = folder / "training.safetensors"
        if not checkpoint.exists():
            if compiled is None:
                long = training.train_tasks * training.batches_per_task >= COMPILE_FROM_UPDATES
                compiled = collapses(config) and long and has_compiler()
            state = cls(model, training, compiled)
            state.snapshot(seeds)
            return state
        tensors, metadata = read_tensors(checkpoint)
        state = cls(model, training, metadata.get("compiled") == "True")
        state._restore(tensors, int(metadata["task_count"]), checkpoint)
        return state

    def update(self, losses: tuple[Tensor, Tensor]) -> None:
        """One Adam step on the summed losses; seeds share no parameter, so each follows its own gradient."""
        self.optimizer.zero_grad()
        loss, reference_loss = losses
        (loss.sum() + reference_loss.sum()).backward()
        self.optimizer.step()
        self._sums += torch.stack([loss, reference_loss]).detach().cpu()
        self._updates += 1

    def snapshot(self, seeds: Sequence[int]) -> None:
        loss, reference_loss = self._sums / self._updates if self._updates else torch.full_like(self._sums, torch.nan)
        weights = {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}
        losses = {"loss": loss, "reference_loss": reference_loss, "task_count": torch.tensor(self.task_count)}
        if self.snapshots:
            was, now = (self._finite(w) for w in (self.snapshots[-1], weights))
            for position in torch.nonzero(was & ~now)[:, 0].tolist():
                tqdm.write(
                    f"seed {seeds[position]} diverged by task {self.task_count}; the others go on", file=sys.stderr
                )
        self.snapshots.append(weights | losses)
        self._sums, self._updates = torch.zeros_like(self._sums), 0

    def _finite(self, weights: dict[str, Tensor]) -> Bool[Tensor, " seeds"]:
        return torch.stack([weights[name].flatten(1).isfinite().all(1) for name in self.weights]).all(0)

    def write(self, folder: Path) -> None:
        """The checkpoint, at a chunk's end: all that a resume and an analysis need, in one file."""
        tensors = {name: parameter.data for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        for name in self.snapshots[0]:
            tensors[f"snapshots.{name}"] = torch.stack([snapshot[name] for snapshot in self.snapshots])
        tensors |= {"sums": self._sums, "updates": torch.tensor(self._updates)}
        metadata = {"task_count": str(self.task_count), "compiled": str(self.compiled)}
        write_tensors(folder / "training.safetensors", tensors, metadata)

    def _restore(self, tensors: dict[str, Tensor], task_count: int, path: Path) -> None:
        for name, parameter in self.parameters.items():
            if tensors[name].shape != parameter.shape:
                raise ArtifactError(
                    f"{path} belongs to another run: {name} is {list(tensors[name].shape)}; delete its folder"
                )
            parameter.data.copy_(tensors[name])
            prefix = f"adam.{name}."
            self.optimizer.state[parameter] = {
                key.removeprefix(prefix): value.to(parameter.device if "exp" in key else "cpu")
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
        names = [name.removeprefix("snapshots.") for name in tensors if name.startswith("snapshots.")]
        count = len(tensors["snapshots.task_count"])
        self.snapshots = [{name: tensors[f"snapshots.{name}"][i] for name in names} for i in range(count)]
        self._sums, self._updates = tensors["sums"], int(tensors["updates"])
        self.task_count = task_count


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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no NaN


def _metric_rows(record: TrainingRecord, seeds: Sequence[int]) -> list[dict[str, float | int | None]]:
    return [
        {"task_count": count, "seed": seed, "loss": _finite(loss), "reference_loss": _finite(reference)}
        for count, losses, references in zip(
            record.task_count.tolist()[1:], record.loss.tolist()[1:], record.reference_loss.tolist()[1:], strict=True
        )
        for seed, loss, reference in zip(seeds, losses, references, strict=True)
    ]
