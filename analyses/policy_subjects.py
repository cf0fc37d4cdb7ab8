"""The policies that several analyses train: settings in, a finished run out; and how they act on shared tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner, interact
from analyses.configs import AlgorithmZoo, ImitationSettings
from analyses.parallel import in_parallel
from analyses.tables import tidy
from models.artifacts import load_policy, run_folder
from models.files import ArtifactError
from models.policy import PolicyTransformer
from models.policy_actor import act
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_sources import PolicySource, Reinforcement
from models.train_policy import PolicyRecord, train_policy
from tasks.decision import DecisionTasks
from tasks.interaction import Interaction, Step

TASKS_AT_ONCE = 500


@dataclass(frozen=True)
class PolicySubject:
    """Policies, one per seed, trained for one thing: everything that decides their weights."""

    name: str
    config: PolicyConfig
    training: PolicyTraining
    source: PolicySource | Reinforcement
    seeds: int
    out: Path
    start_from: PolicySubject | None = None

    @property
    def folder(self) -> Path:
        setting = {"model": self.config.to_json(), "training": asdict(self.training), "source": repr(self.source)}
        if self.start_from:
            setting["start_from"] = self.start_from.folder.name
        return run_folder(self.out, "policies", setting, range(self.seeds))

    def train(self) -> PolicyRecord:
        """Trains, from where `start_from` ended if that is given, or loads the run where a complete one stands."""
        start = None
        if self.start_from:
            self.start_from.train()
            start = self.start_from.folder
        return train_policy(self.config, self.training, self.source, range(self.seeds), self.folder, start_from=start)

    def trained(self) -> tuple[PolicyTransformer, list[int]]:
        """The policies that did not diverge, and their seeds. Raises ArtifactError where none is left."""
        gone = self.train().diverged()
        seeds = [seed for seed in range(self.seeds) if seed not in gone]
        if not seeds:
            raise ArtifactError(f"all seeds in {self.folder} diverged; lower the learning rate and run again")
        return load_policy(self.folder), seeds


def train_all(subjects: Iterable[PolicySubject]) -> None:
    """Side by side, each run once; those that go on from another one after it."""
    every = {subject.folder: subject for subject in subjects}
    starts = {start.folder: start for subject in every.values() if (start := subject.start_from)}
    for together in (starts, every):
        in_parallel(PolicySubject.train, [(subject,) for subject in together.values()], "training", "policy")


def bandit_network(config: ImitationSettings | AlgorithmZoo) -> PolicyConfig:
    """Of policies on Bernoulli arms: one observation, rewards brought to -1 and 1."""
    return PolicyConfig(
        n_observations=1,
        n_actions=config.n_arms,
        n_ctx=config.n_steps,
        d_model=config.d_model,
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_mlp=4 * config.d_model,
        reward_shift=0.5,
        reward_scale=0.5,
    )


def played(
    player: PolicyTransformer | ActingLearner, tasks: DecisionTasks, n_steps: int, seeds: Sequence[int]
) -> Interaction:
    """Histories of a player on shared tasks (1, n): (seeds, n) for policies, (1, n) for a learner.

    Policies of different seeds draw their actions from streams of their own.
    """
    own = list(seeds) if isinstance(player, PolicyTransformer) else [0]
    parts = []
    for index, start in enumerate(range(0, tasks.batch[1], TASKS_AT_ONCE)):
        some = tasks.select(slice(start, start + TASKS_AT_ONCE)).expanded(len(own))
        acting = {"seeds": own, "purpose": "test/act", "index": index}
        if isinstance(player, PolicyTransformer) and n_steps <= player.config.n_ctx:
            parts.append(act(player, some, n_steps, **acting))
        else:
            with torch.no_grad():
                parts.append(interact(player, some, n_steps, **acting))
    return joined(parts)


def joined(parts: Sequence[Interaction]) -> Interaction:
    """Histories of different tasks side by side."""
    names = (field.name for field in fields(Step))
    columns = {name: torch.cat([getattr(part, name) for part in parts], 1) for name in names}
    return Interaction(**columns, n_observations=parts[0].n_observations, n_actions=parts[0].n_actions)


def training_table(trained: Mapping[str, PolicySubject], metrics: Sequence[str] = ("loss",)) -> pd.DataFrame:
    """Columns of `models.train_policy.PolicyRecord` over training: by policy, step and seed."""
    tables = []
    for name, subject in trained.items():
        record = subject.train()
        axes = {"step": record.step[1:].tolist(), "seed": range(subject.seeds)}
        tables += [tidy(getattr(record, metric)[1:], axes, subject=name, metric=metric) for metric in metrics]
    return pd.concat(tables, ignore_index=True)


def in_batches(
    function: Callable[[Interaction], Tensor], history: Interaction
) -> Float[Tensor, "seeds tasks steps actions"]:
    """The laws that a function gives of every task's history, some tasks at a time."""
    with torch.no_grad():
        pieces = [
            function(history.each(lambda x, start=start: x[:, start : start + TASKS_AT_ONCE]))
            for start in range(0, history.batch[1], TASKS_AT_ONCE)
        ]
    return torch.cat(pieces, 1)
