"""What a training carries from update to update: how it is snapshotted, checkpointed, resumed and finished.

A checkpoint is one file, training.safetensors: parameters, optimiser and all snapshots so far. A trainer whose batches
are functions of (seed, index) goes on from it as if it had never stopped.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from models.artifacts import mark_done, write_metrics, write_provenance
from models.files import read_tensors, write_tensors
from models.folder import AnyConfig, ArtifactError
from models.networks import build
from tasks.progress import progress

CHECKPOINT = "training.safetensors"
SECONDS_BETWEEN_CHECKPOINTS = 5.0


class TrainingState:
    """Parameters [seeds, ...] by name, their optimiser, snapshots, and the progress that has been made.

    UNIT says what progress counts, LOSSES what an update reports: a mean over prompts for every seed and each of them.
    `weights` are those of the parameters that are the network's.
    """

    UNIT: ClassVar[str]
    LOSSES: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        weights: Mapping[str, torch.nn.Parameter],
        others: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        compiled: bool,
    ) -> None:
        self.weights = dict(weights)
        self.parameters = {**weights, **others}
        self.optimizer = optimizer
        self.compiled = compiled
        self.progress = 0
        self.snapshots: list[dict[str, Tensor]] = []
        self._sums = torch.zeros(len(self.LOSSES), len(next(iter(weights.values()))))
        self._updates = 0

    def until(
        self, total: int, seeds: Sequence[int], folder: Path, snapshot_at: Callable[[int], bool]
    ) -> Iterator[int]:
        """The number of every step that is left of `total`, behind a progress bar; the caller makes the step.

        Snapshots are taken where snapshot_at says so of the progress, and at the end. A checkpoint is written between
        steps, so what a step reads must follow from its number.
        """
        last = time.monotonic()
        unit = self.UNIT.removesuffix("_count")
        with progress(total=total, initial=self.progress, unit=unit, desc="training") as bar:
            while self.progress < total:
                yield self.progress
                self.progress += 1
                if snapshot_at(self.progress) or self.progress == total:
                    self.snapshot(seeds)
                bar.update()
                if time.monotonic() - last > SECONDS_BETWEEN_CHECKPOINTS:
                    self.write(folder)
                    last = time.monotonic()

    def update(self, losses: Sequence[Tensor]) -> None:
        """One step on the summed losses [seeds]; seeds share no parameter, so each follows its own gradient."""
        self.optimizer.zero_grad()
        torch.stack([loss.sum() for loss in losses]).sum().backward()
        self.optimizer.step()
        self.report(losses)

    def report(self, losses: Sequence[Tensor]) -> None:
        """Counts losses [seeds] in the means of the next snapshot."""
        self._sums += torch.stack(list(losses)).detach().cpu()
        self._updates += 1

    def snapshot(self, seeds: Sequence[int]) -> None:
        """Keeps the parameters and the mean losses since the last snapshot; says which seeds have diverged since."""
        means = self._sums / self._updates if self._updates else torch.full_like(self._sums, torch.nan)
        parameters = {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}
        losses = dict(zip(self.LOSSES, means, strict=True))
        if self.snapshots:
            was, now = (self._finite(w) for w in (self.snapshots[-1], parameters))
            unit = self.UNIT.removesuffix("_count")
            for position in torch.nonzero(was & ~now)[:, 0].tolist():
                tqdm.write(
                    f"seed {seeds[position]} diverged by {unit} {self.progress}; the others go on", file=sys.stderr
                )
        self.snapshots.append(parameters | losses | {self.UNIT: torch.tensor(self.progress)})
        self._sums, self._updates = torch.zeros_like(self._sums), 0

    def _finite(self, weights: Mapping[str, Tensor]) -> Bool[Tensor, " seeds"]:
        return torch.stack([weights[name].flatten(1).isfinite().all(1) for name in self.weights]).all(0)

    def write(self, folder: Path) -> None:
        """The checkpoint: all that a resume and an analysis need, in one file."""
        tensors = {name: parameter.data for name, parameter in self.parameters.items()} | self.optimizer_tensors()
        for name in self.snapshots[0]:
            tensors[f"snapshots.{name}"] = torch.stack([snapshot[name] for snapshot in self.snapshots])
        tensors |= {"sums": self._sums, "updates": torch.tensor(self._updates)}
        metadata = {self.UNIT: str(self.progress), "compiled": str(self.compiled)}
        write_tensors(folder / CHECKPOINT, tensors, metadata)

    def restore(self, folder: Path) -> None:
        """Goes back to the checkpoint in a folder. Raises ArtifactError where it is damaged or another network's."""
        path = folder / CHECKPOINT
        tensors, metadata = read_tensors(path)
        for name, parameter in self.parameters.items():
            if tensors[name].shape != parameter.shape:
                raise ArtifactError(
                    f"{path} belongs to another run: {name} is {list(tensors[name].shape)}; delete its folder"
                )
            parameter.data.copy_(tensors[name])
        self.restore_optimizer(tensors)
        self.snapshots = unstacked(snapshots_in(tensors), len(tensors[f"snapshots.{self.UNIT}"]))
        self._sums, self._updates = tensors["sums"], int(tensors["updates"])
        self.progress = int(metadata[self.UNIT])

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimiser's state by name."""
        state = self.optimizer.state
        items = self.parameters.items()
        return {f"adam.{name}.{key}": value for name, p in items for key, value in state[p].items()}

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `optimizer_tensors` named."""
        for name, parameter in self.parameters.items():
            prefix = f"adam.{name}."
            self.optimizer.state[parameter] = {
                key.removeprefix(prefix): value.to(parameter.device if "exp" in key else "cpu")
                for key, value in tensors.items()
                if key.startswith(prefix)
            }


def unstacked(series: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Tensors [S, ...] by name as S dictionaries."""
    return [{name: tensor[i] for name, tensor in series.items()} for i in range(count)]


def snapshots_in(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The snapshots [S, ...] by name in a checkpoint's tensors."""
    prefix = "snapshots."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def read_snapshots(folder: Path) -> dict[str, Tensor]:
    """A run folder's snapshots. Raises ArtifactError where there are none or they are damaged."""
    tensors, _ = read_tensors(folder / CHECKPOINT)
    return snapshots_in(tensors)


def was_compiled(folder: Path) -> bool:
    """Whether the training in a folder that holds a checkpoint was compiled: a resumed run keeps its mode."""
    return read_tensors(folder / CHECKPOINT)[1].get("compiled") == "True"


def diverged(weights: Mapping[str, Tensor], progress: Tensor) -> dict[int, int]:
    """Position of every seed whose weights [S, seeds, ...] are not finite at the end -> progress [S] when first so."""
    finite = torch.stack([w.isfinite().flatten(2).all(-1) for w in weights.values()]).all(0)  # [S, seeds]
    first = (~finite).int().argmax(0)
    return {seed: int(progress[first[seed]]) for seed in torch.nonzero(~finite[-1])[:, 0].tolist()}


def finish(
    folder: Path,
    config: AnyConfig,
    state: TrainingState,
    seeds: Sequence[int],
    started: float,
    **facts: Any,
) -> None:
    """Writes what a finished run leaves: the surviving seeds' network, metrics, provenance and, last, DONE."""
    state.write(folder)
    series = read_snapshots(folder)
    gone = diverged({name: series[name] for name in state.weights}, series[state.UNIT])
    sound = [position for position in range(len(seeds)) if position not in gone] or list(range(len(seeds)))
    build(config, {name: weight.detach()[sound] for name, weight in state.weights.items()}).save_pretrained(folder)
    write_metrics(folder, _metric_rows(state, series, seeds))
    write_provenance(
        folder,
        started,
        compiled=state.compiled,
        seeds=[seeds[position] for position in sound],
        diverged={seeds[position]: progress for position, progress in gone.items()},
        **facts,
    )
    mark_done(folder)


def has_compiler() -> bool:
    """Whether torch.compile can find a C++ compiler for the CPU."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl"))


def _metric_rows(
    state: TrainingState, series: Mapping[str, Tensor], seeds: Sequence[int]
) -> list[dict[str, float | int | None]]:
    """A row for every snapshot but the first, which has no losses, and seed."""
    losses = {name: series[name].tolist() for name in state.LOSSES}
    return [
        {state.UNIT: progress, "seed": seed, **{name: _finite(values[i][k]) for name, values in losses.items()}}
        for i, progress in enumerate(series[state.UNIT].tolist())
        if i > 0
        for k, seed in enumerate(seeds)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON knows no NaN
