"""The settings of the analyses of networks that were built, not trained on tasks: their algorithms are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analyses.presets import Analysis, Preset


@dataclass(frozen=True)
class Constructions:
    """Do the constructed weights compute their algorithms? (arXiv 2405.13861, Theorems 1 and 3)"""

    preset: Preset = "laptop"
    """smoke: seconds; laptop and paper: the published scale."""
    n_layers: int = 40
    """Depth: one step of the algorithm per layer."""
    d_features: int = 3
    """Feature dimension d."""
    context_length: int = 100
    """Transitions in the context, n."""
    n_tasks: int = 30
    """Random tasks (the paper's trials)."""
    lam: float = 0.5
    """Trace decay of TD(lambda)."""
    seeds: int = 1
    """Independent sets of tasks and preconditioners."""
    out: Path = Path("runs")
    """Folder for tables and figures."""


@dataclass(frozen=True)
class ContextLength:
    """Do values get better with more context, weights untouched? (arXiv 2405.13861, Fig. 1)"""

    preset: Preset = "laptop"
    """smoke: seconds; laptop and paper: the published scale."""
    n_layers: int = 15
    """Depth: TD steps of the constructed network."""
    step_size: float = 0.2
    """Its step size alpha."""
    d_features: int = 5
    """Feature dimension d."""
    n_states: int = 15
    """Largest number of states; each task draws from min_states to this (the paper says 10, its code 15)."""
    min_states: int = 5
    """Smallest number of states."""
    gamma: float = 0.9
    """Discount factor."""
    n_tasks: int = 300
    """Loop processes to average over."""
    context_lengths: tuple[int, ...] = tuple(range(1, 41, 2))
    """Transitions in the context."""
    seeds: int = 1
    """Independent sets of tasks."""
    out: Path = Path("runs")
    """Folder for tables and figures."""


@dataclass(frozen=True)
class ModelRecovery:
    """How often is the verdict wrong? Planted networks, whose algorithm is known, and decoys that run none."""

    preset: Preset = "laptop"
    """How many networks: about 40, 340 or 900."""
    split: Literal["calibration", "held-out", "test", "final", "report"] = "report"
    """The population: the rule was developed on the first four; `report` was drawn when it was final."""
    fitting_tasks: int = 128
    """Tasks that the rivals' constants are fitted on."""
    held_out_tasks: int = 200
    """Tasks that answers are decided on."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class RegressionRecovery(ModelRecovery):
    """How often is the verdict wrong on in-context regression? Planted networks and decoys of labelled examples."""

    preset: Preset = "laptop"
    """How many networks: about 30, 130 or 700."""
    split: Literal["calibration", "report"] = "report"
    """The population: the rule was developed on `calibration`; `report` was drawn when it was final."""


@dataclass(frozen=True)
class CausalTests:
    """Which intervention tells which learners apart, and do constructions move as their own learner predicts?"""

    preset: Preset = "laptop"
    """smoke: seconds; laptop: about a minute on two cores; paper: more tasks and networks."""
    depths: tuple[int, ...] = (3, 8)
    """Steps of the learners that are compared; the constructions have the first of these depths."""
    step_size: float = 1.7
    """Step size alpha of the compared learners (residual gradient takes half of it)."""
    context_length: int = 30
    """Transitions in the context, n."""
    table_tasks: int = 100
    """Tasks that learners are compared on."""
    fitting_tasks: int = 128
    """Tasks that rivals are fitted on, to the predictions of the constructions."""
    held_out_tasks: int = 100
    """Tasks that interventions are made on."""
    seeds: int = 4
    """Networks of every kind, each with constants of its own."""
    out: Path = Path("runs")
    """Folder for tables and figures."""


PLANTED_ANALYSES = {
    "constructions": Analysis(
        Constructions,
        {"smoke": {"n_tasks": 4, "n_layers": 10}, "laptop": {}, "paper": {}},
        {"smoke": "about 10 s", "laptop": "about 15 s", "paper": "about 15 s"},
    ),
    "context-length": Analysis(
        ContextLength,
        {"smoke": {"n_tasks": 20}, "laptop": {}, "paper": {"seeds": 30}},
        {"smoke": "about 10 s", "laptop": "about 15 s", "paper": "about 1 min"},
    ),
    "model-recovery": Analysis(
        ModelRecovery,
        {"smoke": {"fitting_tasks": 40, "held_out_tasks": 60}, "laptop": {}, "paper": {}},
        {"smoke": "about 30 s", "laptop": "about 8 min", "paper": "about 20 min"},
    ),
    "regression-recovery": Analysis(
        RegressionRecovery,
        {"smoke": {"fitting_tasks": 40, "held_out_tasks": 60}, "laptop": {}, "paper": {}},
        {"smoke": "about 30 s", "laptop": "about 4 min", "paper": "about 20 min"},
    ),
    "causal-tests": Analysis(
        CausalTests,
        {
            "smoke": {"depths": (2,), "table_tasks": 12, "fitting_tasks": 24, "held_out_tasks": 12, "seeds": 1},
            "laptop": {},
            "paper": {"table_tasks": 400, "held_out_tasks": 400, "seeds": 10},
        },
        {"smoke": "about 20 s", "laptop": "about 2 min", "paper": "about 10 min"},
    ),
}
