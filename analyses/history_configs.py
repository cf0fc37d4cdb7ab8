"""The settings of collections of learning histories, by task: frozen, and free of torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HELP = """\
usage: learnscope collect TASK [--learner NAME] [settings]

Records whole training runs of a learner, one in each of many tasks: what Algorithm Distillation (arXiv 2210.14215)
learns from. What was interrupted goes on; what is complete is read and drawn again. It leaves

  <out>/histories/<task>-<learner>/
    config.json, shard-*.safetensors      the histories, as models/histories.py describes and reads them
    figures/histories.png, .pdf, -*.csv   a picture of them, and the data behind it

tasks:
  bernoulli-bandit                         arms that are coins
  dark-room, dark-room-hard, key-to-door   rooms whose goal is not seen
  ring, arrival-ring, tree, chain, dense   decision problems of few states

examples:
  learnscope collect bernoulli-bandit --learner gittins --n-tasks 2000
  learnscope collect dark-room --learner q-learning --constants step_size 0.5 temperature 0.2 --keep-every 4

`learnscope collect TASK --help` lists the learners, and every setting with its default.
"""
BanditLearner = Literal[
    "random",
    "win-stay-lose-shift",
    "empirical-mean",
    "posterior-mean",
    "ucb",
    "ucb1",
    "lcb",
    "discounted-ucb",
    "thompson",
    "gaussian-thompson",
    "bayes-optimal",
    "gittins",
    "gradient-bandit",
    "exp3",
    "constant-step",
    "forgetting",
    "explore-then-commit",
]
ControlLearner = Literal[
    "random",
    "monte-carlo-control",
    "sarsa",
    "expected-sarsa",
    "q-learning",
    "policy-gradient",
    "actor-critic",
    "certainty-equivalence",
    "ucb-vi",
    "posterior-sampling",
    "successor-representation",
    "episodic-control",
]


@dataclass(frozen=True)
class Collection:
    """Whole training runs of a learner, one in each of many tasks."""

    learner: str = "q-learning"
    """Whose learning is recorded."""
    constants: dict[str, float] = field(default_factory=dict)
    """The learner's constants that are not at their defaults: --constants step_size 0.5 temperature 0.2."""
    n_tasks: int = 1000
    """Tasks, one history each."""
    n_steps: int = 1000
    """Steps in each of them, those that are not kept included."""
    keep_every: int = 1
    """Of a task's episodes every one of so many is kept, so that learning looks as many times as fast."""
    tasks_per_shard: int = 500
    """Tasks that are acted in at once and stored in one file; fewer take less memory."""
    seed: int = 0
    """Of the tasks and of all that happens in them."""
    out: Path = Path("runs")
    """The collection goes into <out>/histories/<task>-<learner>."""


@dataclass(frozen=True)
class BanditCollection(Collection):
    """Whole training runs of a bandit learner, one on each of many bandits whose arms are coins."""

    learner: BanditLearner = "thompson"
    """Whose learning is recorded."""
    n_steps: int = 100
    """Pulls of each bandit."""
    n_arms: int = 5
    """Arms, their chances uniform."""


@dataclass(frozen=True)
class RoomCollection(Collection):
    """Whole training runs of a learner, one in each of many rooms whose goal is not seen (arXiv 2210.14215)."""

    learner: ControlLearner = "q-learning"
    """Whose learning is recorded."""
    size: int = 9
    """Cells on a side of the room."""
    horizon: int | None = None
    """Steps of an episode; None takes the published 20, of key-to-door 50."""
    held_out: float = 0.0
    """Share of all goals that no task has, left to test on."""


@dataclass(frozen=True)
class MDPCollection(Collection):
    """Whole training runs of a learner, one in each of many decision problems of few states."""

    learner: ControlLearner = "q-learning"
    """Whose learning is recorded."""
    n_states: int | None = None
    """States of each; None takes 7 of a ring, 15 of a tree, 8 of a chain, 10 of a dense one."""


COLLECTIONS: dict[str, Collection] = {
    "bernoulli-bandit": BanditCollection(),
    "dark-room": RoomCollection(n_steps=4000),
    "dark-room-hard": RoomCollection(n_steps=8000),
    "key-to-door": RoomCollection(n_steps=20000),
    "ring": MDPCollection(),
    "arrival-ring": MDPCollection(),
    "tree": MDPCollection(),
    "chain": MDPCollection(),
    "dense": MDPCollection(),
}
