"""Decoys: predictors that run none of the learners in the bank, so that `none` is the right answer whatever they score.

Random networks; networks trained where rewards tell nothing about states, or on one single task; attention that looks
neighbours up instead of learning; and weights that are right in distribution but blind to the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from models.artifacts import run_folder
from models.config import LinearTransformerConfig, TrainingConfig
from models.linear import LinearTransformer
from models.train import TASKS_PER_CHUNK, train
from tasks.layout import Prompt
from tasks.markov_reward import TaskFamily
from tasks.streams import normals, uniforms
from tasks.trajectories import TaskSource, Trajectories

LEARNING_RATE = 5e-3  # five times the paper's: these trainings are short
IN_DISTRIBUTION_TASKS = 1024  # from which the weights that ignore the context are computed


@dataclass(frozen=True)
class ShuffledRewards:
    """A task source whose rewards are permuted along every trajectory: their mean is all that they tell."""

    source: TaskSource

    @property
    def gamma(self) -> float:
        return self.source.gamma

    @property
    def d_features(self) -> int:
        return self.source.d_features

    def rollouts(self, seeds: Sequence[int], index: int, n_tasks: int, n_rollouts: int, n_steps: int) -> Trajectories:
        """The source's trajectories with permuted rewards; their true values are no more."""
        seen = self.source.rollouts(seeds, index, n_tasks, n_rollouts, n_steps)
        order = uniforms(seeds, "shuffled-rewards", index, *seen.rewards.shape[1:]).argsort(-1)
        return replace(seen, rewards=seen.rewards.gather(-1, order), values=None)


@dataclass(frozen=True)
class ContextBlind:
    """Predicts phi_q . w with weights [members, 1, d] of its own: nothing in the context can move it."""

    weights: Float[Tensor, "members 1 d"]

    def predict(self, prompt: Prompt) -> Float[Tensor, "members tasks queries 1"]:
        features = prompt.layout.read(prompt.query_tokens, "features")
        return features @ self.weights[..., None].to(features)


def random_network(config: LinearTransformerConfig, members: Sequence[int], purpose: str) -> LinearTransformer:
    """Independent weights N(0, scale^2), the scale of a member log-uniform from .05 to .5."""
    shape = (2, config.n_weight_layers, len(config.masks), config.width, config.width)
    scale = 0.05 * 10 ** uniforms(members, f"{purpose}/scale", 0).double()
    P, Q = (scale[:, None, None, None, None, None] * normals(members, f"{purpose}/weights", 0, *shape)).unbind(1)
    return LinearTransformer(config, P, Q)


def smoother(
    config: LinearTransformerConfig, members: Sequence[int], purpose: str, *, sharpness: tuple[float, float]
) -> LinearTransformer:
    """Softmax attention that looks rewards up by inner product: v_q = s sum_j softmax_j(beta phi_q . phi_j) R_j.

    beta is log-uniform within `sharpness`: a kernel smoother where it is small, the nearest neighbour where it is
    large. What a layer has predicted leaves the rewards of the context, so that the next one smooths the rest
    (boosting, Buehlmann and Yu 2003); a member's shrinkage s is uniform from .4 to 1.
    """
    low, high = sharpness
    beta = low * (high / low) ** uniforms(members, f"{purpose}/sharpness", 0).double()
    shrinkage = 0.4 + 0.6 * uniforms(members, f"{purpose}/shrinkage", 0).double()
    shape = (len(members), config.n_weight_layers, 1, config.width, config.width)
    model = LinearTransformer(config, torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64))
    with torch.no_grad():
        model.layout.block(model.P, "reward", "reward")[:] = config.readout_sign * shrinkage[:, None, None, None, None]
        look_up = beta[:, None, None, None, None] * torch.eye(config.d_features, dtype=torch.float64)
        model.layout.block(model.Q, "features", "features")[:] = look_up
    return model


def context_blind(seeds: Sequence[int], d_features: int) -> ContextBlind:
    """The best fixed weights, min_w E (phi . w - v)^2, on tasks of one seed that share features and reward."""
    family = TaskFamily(d_features=d_features, fixed=("features", "reward"))
    process = family.sample(seeds, "context-blind", 0, IN_DISTRIBUTION_TASKS)
    weighted = process.stationary[..., None] * process.features  # [seeds, tasks, states, d]
    second = (weighted.mT @ process.features).double().sum(1)
    first = (weighted.mT @ process.values[..., None]).double().sum(1)
    return ContextBlind(torch.linalg.solve(second, first).mT)


def trained_decoy(
    config: LinearTransformerConfig, source: TaskSource, seeds: Sequence[int], train_tasks: int, folder: Path
) -> LinearTransformer:
    """A network trained by multi-task TD on a source that no learner can profit from; kept in a run folder."""
    training = TrainingConfig(train_tasks=train_tasks, learning_rate=LEARNING_RATE, snapshot_every=train_tasks)
    setting = {
        "model": config.to_json(),
        "training": asdict(training),
        "task": repr(source),
        "chunk": TASKS_PER_CHUNK,
    }
    record = train(config, training, source, seeds, run_folder(folder, "decoys", setting, seeds), compiled=False)
    return LinearTransformer(config, record.P[-1].double(), record.Q[-1].double())
