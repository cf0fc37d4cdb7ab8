"""What commands take, and what their help says: frozen, and free of torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from analyses.configs import Preset, Task

ExampleTask = Literal["linear-regression", "unitary-autoregression", "orthogonal-autoregression", "haar-autoregression"]
PolicyTask = Literal[
    "bernoulli-bandit",
    "ring",
    "arrival-ring",
    "tree",
    "chain",
    "dense",
    "dark-room",
    "dark-room-hard",
    "key-to-door",
]

HELP = """\
usage: learnscope COMMAND [options]

Which learning algorithm does a trained network run in context?

  list                         the analyses: the question each answers, and how long its presets take
  run ANALYSIS [settings]      compute the tables, draw the figures, say what was found
  figures ANALYSIS             redraw the figures from the tables
  reproduce                    the core analyses one after the other, then a look inside the trained network
  inspect FOLDER --task NAME   which learner do the weights in FOLDER run?
  compare FOLDER FOLDER        two networks side by side, a value estimator and a policy, say
  collect TASK                 learning histories: whole training runs of a learner, to distil policies from

examples:
  learnscope run constructions
  learnscope run td-emergence --preset smoke
  learnscope run td-emergence --n-layers 1 --seeds 30
  learnscope inspect runs/subjects/<run> --task boyan-chain --card runs/card

`learnscope COMMAND --help` says more.
"""

RUN_HELP = """\
usage: learnscope run ANALYSIS [--preset smoke|laptop|paper] [settings]

Computes an analysis, draws its figures and says what was found. Training resumes where it was interrupted. It leaves

  <out>/<analysis>/tables/     tidy tables (Parquet)
  <out>/<analysis>/figures/    PNG, PDF and the data behind them (CSV)
  <out>/subjects/<run>/        the trained networks, where there are any (config.json, model.safetensors)

A preset decides the defaults, and every setting can be changed: `learnscope run ANALYSIS --help` lists them.

{analyses}
"""


@dataclass(frozen=True)
class Figures:
    """Redraws the figures of an analysis from its tables; nothing is computed."""

    out: Path = Path("runs")
    """The folder that the analysis was run with."""


@dataclass(frozen=True)
class Reproduce:
    """Runs the core analyses in order, skipping complete ones, then inspects the network that was trained."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published scale."""
    all: tyro.conf.FlagCreatePairsOff[bool] = False
    """Every analysis, not only the core ones."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class Inspect:
    """Compares a network with every rival learner on tasks of a family and says which one it runs.

    The folder holds config.json and model.safetensors: P and Q, [seeds, layers, width, width], from here or elsewhere;
    or a policy from here, on bandits, decision problems of few states, or in rooms.
    """

    folder: tyro.conf.Positional[Path]
    """A run folder, or one of your own."""
    task: Task | ExampleTask | PolicyTask
    """Family of tasks; linear-regression for labelled examples (P, Q of width d + 1), autoregression for sequences,
    for policies bernoulli-bandit, a decision problem of few states (ring, arrival-ring, tree, chain, dense), or a room
    (dark-room, dark-room-hard, key-to-door)."""
    n_states: int = 10
    """States per task, of Markov reward processes."""
    context_length: int | None = None
    """Transitions, examples or steps in the context; None takes the papers' 30 or 20, of a policy's steps 50."""
    horizon: int | None = None
    """Steps of an episode, in rooms; None takes the published 20, of key-to-door 50."""
    rivals: Literal["linear", "all"] = "linear"
    """linear: learners whose values are linear in the query's features; all: softmax TD too, which is slower to fit."""
    card: Path | None = None
    """Also draw the evidence card, one page (PNG, PDF and the data behind it), into this folder."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Compare:
    """Inspects two networks, each on a task of its own, and puts side by side what they leave of their rivals.

    One may be a value estimator and the other a policy: their rivals are put together by what they do with a reward.
    """

    folders: tyro.conf.Positional[tuple[Path, Path]]
    """Two run folders, or folders of your own."""
    tasks: tuple[Task | ExampleTask | PolicyTask, Task | ExampleTask | PolicyTask] | None = None
    """A family of tasks for each, as in inspect; None takes the first that fits, and names the others that do."""
    card: Path | None = None
    """Also draw both side by side (PNG, PDF and the data behind it), into this folder."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object and nothing else."""
