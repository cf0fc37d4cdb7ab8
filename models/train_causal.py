"""Training of causal networks: Adam on fresh sequences where augmented, else gradient descent on the population loss.

All seeds train in one loop. Batch i is a function of (seed, i): a run that was killed goes on from its last checkpoint
and ends at bit-identical weights (same machine and threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import one_thread
from models.artifacts import is_complete
from models.causal import CausalTransformer
from models.causal_config import CausalConfig, CausalTraining
from models.config import ConfigError
from models.networks import initial_weights as network_weights
from models.population_losses import orthogonal_loss, unitary_loss
from models.training_state import CHECKPOINT, TrainingState, finish, read_snapshots
from tasks.autoregressive import AutoregressiveFamily
from tasks.streams import normals

INITIAL_STD = 0.1  # of plain networks, as their authors initialise them
POPULATION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "unitary": unitary_loss,
    "orthogonal": orthogonal_loss,
}


@dataclass(frozen=True)
class CausalRecord:
    """What a finished training leaves for analysis, S snapshots.

    step [S]; loss [S, seeds], E |prediction - s_{T+1}|^2 averaged over prefixes and over the steps since the snapshot
    before (NaN at the first); weights by name, [S, seeds, ...].
    """

    step: Tensor
    loss: Tensor
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> CausalRecord:
        """Reads a run folder's snapshots. Raises ArtifactError where there are none or they are damaged."""
        series = read_snapshots(folder)
        return cls(series.pop("step"), series.pop("loss"), series)


def train_causal(
    config: CausalConfig, training: CausalTraining, family: AutoregressiveFamily, seeds: Sequence[int], folder: Path
) -> CausalRecord:
    """Trains an ensemble into a run folder: skips a complete run, resumes a partial one. On one CPU thread.

    Raises ArtifactError where the folder holds another or a damaged run, ConfigError for sequences that the network
    does not read or whose population loss has no closed form here.
    """
    if config.augmented != family.augmented or config.d_features != family.d_features:
        raise ConfigError(
            f"the network reads d_features {config.d_features}, augmented {config.augmented}; "
            f"the sequences have d_features {family.d_features}, augmented {family.augmented}"
        )
    if not config.augmented and training.context_length != config.context_length:
        raise ConfigError(
            f"context_length is {training.context_length}; this network's positions allow {config.context_length}"
        )
    closed = family.kind in POPULATION_LOSSES and (family.first, family.phase_scale) == ("ones", 1.0)
    if not (config.augmented or closed):
        raise ConfigError(
            f"kind is {family.kind!r}, first {family.first!r} and phase_scale {family.phase_scale}; plain networks "
            f"train on {' or '.join(POPULATION_LOSSES)} with first 'ones' and phase_scale 1"
        )
    if not is_complete(folder):
        with one_thread():
            _train(config, training, family, seeds, folder)
    return CausalRecord.load(folder)


def _train(
    config: CausalConfig, training: CausalTraining, family: AutoregressiveFamily, seeds: Sequence[int], folder: Path
) -> None:
    started = time.time()
    state = _State.start_or_resume(config, training, seeds, folder)
    for _ in state.until(training.steps, seeds, folder, lambda step: step % training.snapshot_every == 0):
        state.step(family, seeds)
    finish(folder, config, state, seeds, started, training=asdict(training), task=repr(family))


class _State(TrainingState):
    """A causal network in training."""

    UNIT = "step"
    LOSSES = ("loss",)

    def __init__(self, model: CausalTransformer, training: CausalTraining) -> None:
        self.model, self.training = model, training
        weights = dict(model.named_parameters())
        if model.config.augmented:
            optimizer: torch.optim.Optimizer = torch.optim.Adam(weights.values(), lr=training.learning_rate)
        else:
            optimizer = torch.optim.SGD(_authors_steps(model, training))
        super().__init__(weights, {}, optimizer, compiled=False)

    @classmethod
    def start_or_resume(
        cls, config: CausalConfig, training: CausalTraining, seeds: Sequence[int], folder: Path
    ) -> _State:
        state = cls(CausalTransformer(config, initial_weights(config, seeds)), training)
        if (folder / CHECKPOINT).exists():
            state.restore(folder)
        else:
            state.snapshot(seeds)
        return state

    def step(self, family: AutoregressiveFamily, seeds: Sequence[int]) -> None:
        """One step of the optimiser."""
        if self.model.config.augmented:
            share = self.progress / self.training.steps
            self.optimizer.param_groups[0]["lr"] = self.training.learning_rate * (1 + math.cos(math.pi * share)) / 2
            self.update([self._sampled(family, seeds)])
        else:
            self.update([POPULATION_LOSSES[family.kind](self.model.C, self.model.P)])

    def _sampled(self, family: AutoregressiveFamily, seeds: Sequence[int]) -> Float[Tensor, " seeds"]:
        size = (self.training.prompts, self.training.context_length)
        prompt = family.fresh_prompt(seeds, "train", self.progress, *size, self.model.layout).to(torch.float32)
        error = self.model.predict(prompt) - prompt.answers
        return error.abs().square().sum(-1).mean((-2, -1))


def initial_weights(config: CausalConfig, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Weights before training, [seeds, ...] by name; those of plain networks as their authors draw them.

    The authors' states have entries of modulus one, ours d^-1/2: our P is d times theirs.
    """
    if config.augmented:
        return network_weights(config, seeds)
    shapes = config.weight_shapes.items()
    weights = {name: INITIAL_STD * normals(seeds, f"init/{name}", 0, *shape) for name, shape in shapes}
    return {**weights, "P": config.d_features * weights["P"]}


def _authors_steps(model: CausalTransformer, training: CausalTraining) -> list[dict[str, Any]]:
    """The parameter groups with which a step on our loss and our P is the authors' step on theirs.

    They descend the sum over prefixes and entries where we take the mean, and their P is ours over d.
    """
    d = model.config.d_features
    rate = training.learning_rate * d * (model.config.context_length - 1)
    return [{"params": [model.A, model.B], "lr": rate}, {"params": [model.P], "lr": rate * d**2}]
