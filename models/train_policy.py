"""The trainer of policies: imitation, return conditioning and reinforcement, all seeds side by side.

Every batch is a function of (seed, index): a run that was killed goes on from its last checkpoint and ends at
bit-identical weights (same machine and threads). A policy that was trained for one thing can go on for another.
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

from algorithms.fit import one_thread
from models.artifacts import is_complete, load_policy
from models.config import ConfigError
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_actor import act
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_objectives import (
    Experience,
    advantages,
    advantages_over_others,
    clipped_loss,
    cross_entropy,
    entropy,
    log_probability,
    standardised,
    value_loss,
)
from models.policy_sources import Lesson, PolicySource, Reinforcement
from models.policy_tokens import hindsight_returns
from models.training_state import (
    CHECKPOINT,
    TrainingState,
    diverged,
    finish,
    read_snapshots,
)
from tasks.interaction import Interaction


@dataclass(frozen=True)
class PolicyRecord:
    """What a finished training leaves for analysis, S snapshots.

    step [S]; loss, reward (per step of the histories) and entropy (of the laws, nats) [S, seeds], means since the
    snapshot before (NaN at the first); weights by name, [S, seeds, ...].
    """

    step: Tensor
    loss: Tensor
    reward: Tensor
    entropy: Tensor
    weights: dict[str, Tensor]

    @classmethod
    def load(cls, folder: Path) -> PolicyRecord:
        """Reads a run folder's snapshots. Raises ArtifactError where there are none or they are damaged."""
        series = read_snapshots(folder)
        return cls(*(series.pop(name) for name in ("step", *_State.LOSSES)), weights=series)

    def diverged(self) -> dict[int, int]:
        """Position of every seed whose weights are not finite at the end -> the step when that was first so."""
        return diverged(self.weights, self.step)


def train_policy(
    config: PolicyConfig,
    training: PolicyTraining,
    source: PolicySource | Reinforcement,
    seeds: Sequence[int],
    folder: Path,
    *,
    start_from: Path | None = None,
    device: str = "cpu",
) -> PolicyRecord:
    """Trains an ensemble into a run folder: skips a complete run, resumes a partial one. On one CPU thread, or a GPU.

    start_from: the folder of a policy whose weights are the first ones. Raises ConfigError where objective, source and
    network do not fit together, ArtifactError where the folder holds another or a damaged run.
    """
    if training.reinforces != isinstance(source, Reinforcement):
        needed = "tasks to act in (Reinforcement)" if training.reinforces else "a source of lessons"
        raise ConfigError(f"objective {training.objective!r} needs {needed}; given: {type(source).__name__}")
    if training.objective in ("actor-critic", "blocked-critic") and not config.critic:
        raise ConfigError(f"objective {training.objective!r} needs a network with critic true")
    if training.objective == "return-conditioned" and not config.returns:
        raise ConfigError("objective 'return-conditioned' needs a network with returns true")
    if not is_complete(folder):
        with one_thread():
            _train(config, training, source, seeds, folder, start_from, device)
    return PolicyRecord.load(folder)


def first_weights(config: PolicyConfig, seeds: Sequence[int], start_from: Path | None) -> dict[str, Tensor]:
    """The weights before training: drawn, or those of another policy (a head that it lacks is drawn).

    Raises ConfigError where that policy has another shape or number of seeds.
    """
    weights = initial_weights(config, seeds)
    if start_from is None:
        return weights
    for name, given in load_policy(start_from).named_parameters():
        if name in weights and given.shape != weights[name].shape:
            shapes = f"{list(given.shape)}, and {list(weights[name].shape)} is needed"
            raise ConfigError(f"{start_from}: {name} has shape {shapes} to go on with these settings and seeds")
        weights[name] = given.detach()
    return {name: weights[name] for name in config.weight_shapes}


def _train(
    config: PolicyConfig,
    training: PolicyTraining,
    source: PolicySource | Reinforcement,
    seeds: Sequence[int],
    folder: Path,
    start_from: Path | None,
    device: str,
) -> None:
    started = time.time()
    weights = {name: weight.to(device) for name, weight in first_weights(config, seeds, start_from).items()}
    state = _State(PolicyTransformer(config, weights), training)
    if (folder / CHECKPOINT).exists():
        state.restore(folder)
    else:
        state.snapshot(seeds)
    lessons = iter(()) if isinstance(source, Reinforcement) else _lessons(state, source, seeds, device)
    for _ in state.until(training.steps, seeds, folder, lambda step: step % training.snapshot_every == 0):
        if isinstance(source, Reinforcement):
            state.reinforce(source, seeds, device)
        else:
            state.imitate(*next(lessons))
    facts = {"training": asdict(training), "source": repr(source), "start_from": start_from and start_from.name}
    finish(folder, config, state, seeds, started, device=device, **facts)


def _lessons(state: _State, source: PolicySource, seeds: Sequence[int], device: str) -> Iterator[Lesson]:
    """Batch after batch, from where the progress stands: slices of what the source draws at once."""
    n, per_draw = state.training.batch_tasks, state.training.tasks_at_once // state.training.batch_tasks
    while True:
        index = state.progress // per_draw
        history, targets = source.lesson(seeds, index, state.training.tasks_at_once, device)
        for batch in range(state.progress % per_draw, per_draw):
            part = slice(batch * n, (batch + 1) * n)
            yield history.each(lambda x, part=part: x[:, part]), targets[:, part]


class _State(TrainingState):
    """Policies in training."""

    UNIT = "step"
    LOSSES = ("loss", "reward", "entropy")

    def __init__(self, model: PolicyTransformer, training: PolicyTraining) -> None:
        self.model, self.training = model, training
        weights = dict(model.named_parameters())
        optimizer = torch.optim.AdamW(
            weights.values(), lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay
        )
        super().__init__(weights, {}, optimizer, compiled=False)

    def imitate(self, history: Interaction, targets: Float[Tensor, "seeds tasks steps actions"]) -> None:
        """One step towards the targets. A return-conditioned policy is told what came in the end: of its histories it
        reads the first n_ctx steps, and the others only for what they brought."""
        returns = None
        if self.training.objective == "return-conditioned":
            n = self.model.config.n_ctx
            returns = hindsight_returns(history)[..., :n]
            history, targets = history.each(lambda x: x[..., :n]), targets[..., :n, :]
        logits = self.model.read_out(self.model(history, returns))
        self._descend(cross_entropy(logits, targets), history, logits)

    def reinforce(self, source: Reinforcement, seeds: Sequence[int], device: str) -> None:
        """The policy acts in fresh tasks, and makes one step for every epoch from what came of it."""
        training, config = self.training, self.model.config
        tasks = source.tasks(seeds, self.progress, training.batch_tasks, device)
        history = act(self.model, tasks, source.n_steps, seeds=seeds, purpose="train/policy", index=self.progress)
        rewards = (history.reward - config.reward_shift) / config.reward_scale
        weight = training.entropy * (1 - self.progress / training.steps)
        experience = targets = None
        for _ in range(training.epochs):
            resid = self.model(history)
            logits = self.model.read_out(resid)
            values = self._values(resid)
            if experience is None:
                before = None if values is None else values.detach()
                gain = self._advantages(rewards, before)
                targets = None if before is None else gain + before
                chosen = log_probability(logits, history.action).detach()
                experience = Experience(history.action, chosen, standardised(gain))
            loss = clipped_loss(logits, experience, training.clip) - weight * entropy(logits)
            if values is not None and targets is not None:
                loss = loss + training.value_weight * value_loss(values, targets)
            self._descend(loss, history, logits)

    def _values(self, resid: Tensor) -> Tensor | None:
        match self.training.objective:
            case "actor-critic":
                return self.model.read_values(resid)
            case "blocked-critic":
                return self.model.read_values(resid.detach())
        return None

    def _advantages(self, rewards: Tensor, values: Tensor | None) -> Tensor:
        gamma, lam = self.training.gamma, self.training.lam
        return advantages_over_others(rewards, gamma) if values is None else advantages(rewards, values, gamma, lam)

    def _descend(self, loss: Float[Tensor, " seeds"], history: Interaction, logits: Tensor) -> None:
        """One step of the optimiser, at the rate of the schedule; no seed's gradient is longer than max_norm."""
        training = self.training
        share = self.progress / training.steps
        warm = min(1.0, (self.progress + 1) / max(1, training.warmup))
        rate = training.learning_rate * warm * (0.55 + 0.45 * math.cos(math.pi * share))
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        loss.sum().backward()
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        scale = (training.max_norm / norm).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
        self.optimizer.step()
        self.report((loss, history.reward.mean((-2, -1)).expand_as(loss), entropy(logits.detach())))
