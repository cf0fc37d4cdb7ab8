"""Learning histories: whole training runs of a source algorithm on thousands of tasks, collected, stored and read.

The folder of a collection holds

    config.json                   HistoryConfig, numbers of observations and actions, family and learner in words
    shard-00000.safetensors ...   observation, action, reward, next_observation, done, each [tasks, steps]
    metrics.jsonl                 per shard: tasks, steps kept, mean reward of the first and of the last tenth of steps
    provenance.json, DONE         as of every run

Shard i is a function of (seed, i): a collection that was killed goes on with the shards that are missing. Of a task's
episodes every k-th is kept, so that learning looks k times as fast (arXiv 2210.14215); where episodes differ in length,
a shard keeps as many steps as all of its tasks have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import one_hot, pad

from algorithms.acting import ActingLearner, interact
from algorithms.fit import one_thread
from models.artifacts import is_complete, mark_done, write_metrics, write_provenance
from models.files import read_tensors, write_json, write_tensors
from models.folder import CONFIG, ArtifactError, read_json
from models.policy_config import HistoryConfig
from models.policy_sources import Lesson
from tasks.decision import DecisionFamily, DecisionTasks
from tasks.errors import ConfigError
from tasks.interaction import Interaction, Step
from tasks.progress import progress
from tasks.streams import uniforms

STORED = {"observation": torch.int16, "action": torch.int16, "next_observation": torch.int16, "reward": torch.float32}


def collect(config: HistoryConfig, family: DecisionFamily, learner: ActingLearner, folder: Path) -> Histories:
    """Collects what is missing of a collection, and reads it. On one CPU thread.

    Raises ArtifactError where the folder holds another or a damaged collection, or anything else.
    """
    setting = _setting(config, family, learner)
    _require_same(folder, setting)
    if not is_complete(folder):
        write_json(folder / CONFIG, setting)
        with one_thread(), torch.no_grad():
            _collect(config, family, learner, folder)
    return Histories.read(folder)


def tasks_of(config: HistoryConfig, family: DecisionFamily) -> Iterator[DecisionTasks]:
    """The tasks of every shard in turn."""
    for shard, n in enumerate(config.shards):
        yield family.draw([config.seed], "histories", shard, n)


def _setting(config: HistoryConfig, family: DecisionFamily, learner: ActingLearner) -> dict[str, Any]:
    """config.json. Raises what the learner raises where it cannot act in such tasks."""
    sample = family.draw([config.seed], "histories", 0, 1)
    learner.start(torch.zeros(sample.batch), sample.n_observations, sample.n_actions)
    facts = {"n_observations": sample.n_observations, "n_actions": sample.n_actions}
    return {**asdict(config), **facts, "family": repr(family), "learner": repr(learner)}


def _require_same(folder: Path, setting: dict[str, Any]) -> None:
    """Raises ArtifactError, naming what differs, unless the folder is empty or holds a collection of this setting."""
    if not (folder / CONFIG).exists():
        if any(not path.name.startswith(".") for path in folder.glob("*")):
            raise ArtifactError(f"{folder} holds other files; histories need a folder of their own")
        return
    stored = read_json(folder / CONFIG)
    if not isinstance(stored, dict) or stored.keys() != setting.keys():
        raise ArtifactError(f"{folder} holds something other than histories; they need a folder of their own")
    differ = [f"{name} is {stored[name]} there, {x} here" for name, x in setting.items() if stored[name] != x]
    if differ:
        raise ArtifactError(
            f"{folder} holds other histories: {'; '.join(differ)}. Choose another folder, or delete this one"
        )


def _collect(config: HistoryConfig, family: DecisionFamily, learner: ActingLearner, folder: Path) -> None:
    started = time.time()
    rows = []
    drawn = progress(tasks_of(config, family), desc="histories", unit="shard", total=len(config.shards))
    for shard, tasks in enumerate(drawn):
        path = _shard(folder, shard)
        if not path.exists():
            acting = {"seeds": [config.seed], "purpose": "histories/act", "index": shard}
            kept = every_kth_episode(interact(learner, tasks, config.n_steps, **acting), config.keep_every)
            parts = {f.name: getattr(kept, f.name)[0] for f in fields(Step)}
            write_tensors(path, {name: x.to(STORED.get(name, x.dtype)) for name, x in parts.items()})
        rows.append(_metrics(shard, read_tensors(path)[0]["reward"]))
    write_metrics(folder, rows)
    write_provenance(folder, started, seeds=[config.seed])
    mark_done(folder)


def every_kth_episode(history: Interaction, k: int) -> Interaction:
    """The steps of episodes 0, k, 2k, ..., as many of them as every task has."""
    if k == 1:
        return history
    episode = pad(history.done[..., :-1].long().cumsum(-1), (1, 0))
    kept: Bool[Tensor, "*batch steps"] = episode % k == 0
    order = (~kept).long().argsort(dim=-1, stable=True)[..., : int(kept.sum(-1).min())]
    return history.each(lambda x: x.gather(-1, order))


@dataclass(frozen=True)
class Histories:
    """A collection that was read: histories with batch axes (1, tasks), and the settings in its config.json."""

    history: Interaction = field(repr=False)
    setting: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Histories:
        """Raises ArtifactError, naming the file, for a collection that is incomplete, changed or damaged."""
        if not is_complete(folder):
            raise ArtifactError(
                f"{folder} holds no complete histories; collect them again, it goes on where it stopped"
            )
        setting = read_json(folder / CONFIG)
        shards = [read_tensors(path)[0] for path in sorted(folder.glob("shard-*.safetensors"))]
        steps = min(shard["action"].shape[-1] for shard in shards)
        parts = {f.name: torch.cat([shard[f.name][:, :steps] for shard in shards])[None] for f in fields(Step)}
        return cls(Interaction(**parts, **{name: setting[name] for name in ("n_observations", "n_actions")}), setting)

    def windows(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, length: int
    ) -> tuple[Int[Tensor, "seeds n 1"], Int[Tensor, "seeds n length"]]:
        """Rows and times of n windows of `length` successive transitions per seed, of random tasks, from random times.

        Raises ConfigError where the histories are shorter.
        """
        tasks, steps = self.history.batch[1], self.history.n_steps
        if length > steps:
            raise ConfigError(f"windows of {length} steps; these histories have {steps}")
        task, start = uniforms(seeds, purpose, index, 2, n).unbind(1)
        row = (task * tasks).long()[..., None]
        return row, (start * (steps - length + 1)).long()[..., None] + torch.arange(length)

    def at(self, row: Int[Tensor, "seeds n 1"], times: Int[Tensor, "seeds n length"]) -> Interaction:
        """These steps, with axes (seeds, n)."""
        window = self.history.each(lambda x: x[0][row, times])
        numbers = ("observation", "action", "next_observation")
        return replace(window, **{name: getattr(window, name).long() for name in numbers})


@dataclass(frozen=True)
class Recorded:
    """Algorithm Distillation from stored histories: windows of n_steps transitions, and the actions taken there.

    Of a window that is longer than its context a return-conditioned policy reads the first steps, and is told what the
    others brought: so that episodes which begin in the context have their whole return.
    """

    histories: Histories
    n_steps: int

    def lesson(self, seeds: Sequence[int], index: int, n: int, device: str) -> Lesson:
        """n windows per seed, and targets."""
        places = self.histories.windows(seeds, "train/window", index, n, self.n_steps)
        window = self.histories.at(*places).each(lambda x: x.to(device))
        return window, one_hot(window.action, window.n_actions).to(window.reward)


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.safetensors"


def _metrics(shard: int, reward: Tensor) -> dict[str, float | int]:
    n_tasks, n_steps = reward.shape
    tenth = max(1, n_steps // 10)
    first, last = float(reward[:, :tenth].mean()), float(reward[:, -tenth:].mean())
    return {"shard": shard, "tasks": n_tasks, "steps": n_steps, "first_reward": first, "last_reward": last}
