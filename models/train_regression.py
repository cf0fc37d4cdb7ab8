"""Training of in-context regression: AdamW on fresh prompts, then a polish on fixed batches, all seeds side by side.

Every batch is a function of (seed, index): a run that was killed goes on from its last checkpoint and ends at
bit-identical weights (same machine, threads and mode).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from algorithms.fit import one_thread
from models.artifacts import is_complete
from models.config import ConfigError, LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer
from models.polish import POLISHES
from models.regression_objective import Examples, batch_last, initial_weights, residuals, trainable
from models.train import collapses
from models.training_state import (
    CHECKPOINT,
    TrainingState,
    diverged,
    finish,
    has_compiler,
    read_snapshots,
    was_compiled,
)
from tasks.regression import RegressionFamily

COMPILE_FROM_PROMPTS = 50_000_000  # shorter trainings are over before compilation would be
PROMPTS_PER_CHUNK = 5000  # of a polish: what its gradients per prompt have room for


@dataclass(frozen=True)
class RegressionRecord:
    """What a finished training leaves for analysis, S snapshots.

    step [S]: of AdamW and then of the polish; loss [S, seeds], the mean since the snapshot before (NaN at the first);
    P and Q [S, seeds, layers, heads, width, width].
    """

    step: Tensor
    loss: Tensor
    P: Tensor
    Q: Tensor

    @classmethod
    def load(cls, folder: Path) -> RegressionRecord:
        """Reads a run folder's snapshots. Raises ArtifactError where there are none or they are damaged."""
        return cls(**read_snapshots(folder))

    def diverged(self) -> dict[int, int]:
        """Position of every seed whose weights are not finite at the end -> the step when that was first so."""
        return diverged({"P": self.P, "Q": self.Q}, self.step)


def train_regression(
    config: LinearTransformerConfig,
    training: RegressionTraining,
    family: RegressionFamily,
    seeds: Sequence[int],
    folder: Path,
    *,
    device: str = "cpu",
    compiled: bool | None = None,
) -> RegressionRecord:
    """Trains an ensemble into a run folder: skips a complete run, resumes a partial one.

    `compiled` None compiles long trainings where there is a C++ compiler; a resumed run keeps its mode. Trains on one
    CPU thread, as `models.train.train`. Raises ArtifactError where the folder holds another or a damaged run,
    ConfigError for a network that is not linear attention over labelled tokens.
    """
    if config.tokens != "labelled" or not collapses(config):
        raise ConfigError(
            f"tokens are {config.tokens!r} and activation is {config.activation!r}; regression trains "
            "labelled tokens and linear attention"
        )
    if not is_complete(folder):
        with one_thread():
            _train(config, training, family, seeds, folder, device, compiled)
    return RegressionRecord.load(folder)


def _train(
    config: LinearTransformerConfig,
    training: RegressionTraining,
    family: RegressionFamily,
    seeds: Sequence[int],
    folder: Path,
    device: str,
    compiled: bool | None,
) -> None:
    started = time.time()
    state = _State.start_or_resume(config, training, seeds, folder, device, compiled)

    def examples(index: int, n: int) -> Examples:
        prompt = family.training_prompt(seeds, index, n, training.context_length, state.model.layout)
        return Examples(*(x.to(device) for x in Examples.read(prompt)))

    total = training.steps + sum(steps for steps, _ in training.stages)
    batches, read = [], []

    def snapshot_at(step: int) -> bool:
        return step >= training.steps or step % training.snapshot_every == 0

    for step in state.until(total, seeds, folder, snapshot_at):
        if read != (wanted := _batches(training, step)):
            batches, read = [examples(index, n) for index, n in wanted], wanted
        (state.step if step < training.steps else state.polish)(batches)
    finish(folder, config, state, seeds, started, device=device, training=asdict(training), task=repr(family))


def _batches(training: RegressionTraining, step: int) -> list[tuple[int, int]]:
    """The batches (index, prompts) that a step reads: a polish reads the same ones for a whole stage, all new to it."""
    if step < training.steps:
        return [(step // training.resample_every, training.prompts)]
    first, end = -(-training.steps // training.resample_every), training.steps
    for steps, prompts in training.stages:
        sizes = [min(PROMPTS_PER_CHUNK, prompts - start) for start in range(0, prompts, PROMPTS_PER_CHUNK)]
        end += steps
        if step < end:
            return list(enumerate(sizes, first))
        first += len(sizes)
    raise ValueError(f"step {step} comes after the last one, {end - 1}")


class _State(TrainingState):
    """A regression network in training: AdamW, and the polish after it."""

    UNIT = "step"
    LOSSES = ("loss",)

    def __init__(self, model: LinearTransformer, training: RegressionTraining, compiled: bool) -> None:
        self.model, self.training = model, training
        weights = {"P": model.P, "Q": model.Q}
        optimizer = torch.optim.AdamW(
            weights.values(), lr=training.learning_rate, betas=training.betas, weight_decay=0.0, fused=True
        )
        super().__init__(weights, {}, optimizer, compiled)
        errors = partial(residuals, config=model.config)
        self._residuals = torch.compile(errors, dynamic=False) if compiled else errors
        masks = {name: mask.to(model.P.device) for name, mask in trainable(training.family, model.layout).items()}
        for name, weight in weights.items():
            weight.register_post_accumulate_grad_hook(partial(_constrain, mask=masks[name], clip=training.clip))
        self._polish = POLISHES[training.polish](
            [weight.data for weight in weights.values()], list(masks.values()), self._residuals
        )

    @classmethod
    def start_or_resume(
        cls,
        config: LinearTransformerConfig,
        training: RegressionTraining,
        seeds: Sequence[int],
        folder: Path,
        device: str,
        compiled: bool | None,
    ) -> _State:
        weights = initial_weights(config, training, seeds)
        model = LinearTransformer(config, weights["P"].to(device), weights["Q"].to(device))
        if (folder / CHECKPOINT).exists():
            state = cls(model, training, was_compiled(folder))
            state.restore(folder)
            return state
        if compiled is None:
            read = sum(steps * n for steps, n in ((training.steps, training.prompts), *training.stages)) * len(seeds)
            compiled = read >= COMPILE_FROM_PROMPTS and has_compiler()
        state = cls(model, training, compiled)
        state.snapshot(seeds)
        return state

    def step(self, batches: Sequence[Examples]) -> None:
        """One AdamW step; the learning rate halves every `halve_every`."""
        halvings = self.progress // self.training.halve_every
        self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * 0.5**halvings
        P, Q = batch_last(self.model.P), batch_last(self.model.Q)
        self.update([torch.cat([self._residuals(P, Q, batch) for batch in batches], -1).square().mean(-1)])

    def polish(self, batches: Sequence[Examples]) -> None:
        """One step of the polish."""
        self.report([self._polish.step(batches)])

    def optimizer_tensors(self) -> dict[str, Tensor]:
        polish = {f"polish.{name}": tensor for name, tensor in self._polish.tensors().items()}
        return super().optimizer_tensors() | polish

    def restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore_optimizer(tensors)
        prefix = "polish."
        self._polish.restore({name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)})


def _constrain(weight: Tensor, *, mask: Tensor, clip: float) -> None:
    """Gradients of the fixed entries vanish, and no layer's matrix has a gradient of a norm above `clip`."""
    assert weight.grad is not None
    gradient = weight.grad.mul_(mask)
    gradient.mul_((clip / gradient.norm(dim=(-2, -1), keepdim=True)).clamp(max=1.0))
