"""The settings of the analyses of policies on bandits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.presets import Analysis, Preset


@dataclass(frozen=True)
class ImitationSettings:
    """Policies that imitate on Bernoulli bandits: by Algorithm Distillation and by decision pretraining."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: three small policies on two cores; paper: five, trained for longer."""
    n_arms: int = 5
    """Arms, with success probabilities U(0, 1)."""
    n_steps: int = 100
    """Pulls in a trial."""
    d_model: int = 32
    """Width of the residual stream."""
    n_layers: int = 2
    """Depth L."""
    n_heads: int = 2
    """Attention heads in a layer."""
    imitation_steps: int = 2000
    """Steps of Algorithm Distillation, towards the source's whole laws."""
    pretraining_steps: int = 8000
    """Steps of decision pretraining: its labels say less each, one action instead of a law."""
    imitation_tasks: int = 64
    """Fresh tasks in each of either."""
    seeds: int = 3
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class BanditSettings(ImitationSettings):
    """Policies trained on Bernoulli bandits: everything that the analyses of their algorithms share."""

    reinforcement_steps: int = 600
    """Roll-outs of reinforcement pretraining, each read in several clipped steps."""
    reinforcement_tasks: int = 128
    """Fresh tasks in each of them."""


@dataclass(frozen=True)
class InContextImprovement(BanditSettings):
    """Do policies learn new bandits in context, and how near are they to their sources? (2210.14215, 2306.14892)"""

    test_tasks: int = 4000
    """New tasks, shared by all policies and baselines."""


@dataclass(frozen=True)
class BehaviouralBattery(BanditSettings):
    """What do policies say in contexts in which rival algorithms give different answers? (no fitting, signs alone)"""

    pulls: tuple[int, ...] = (2, 4, 8, 16)
    """Pulls of every arm in the contexts of influence kernels."""


@dataclass(frozen=True)
class TwinTest(ImitationSettings):
    """Distilled Thompson sampling and decision pretraining have one optimum: one function, and one mechanism?"""

    contexts: int = 100
    """Designed contexts of every kind, in which networks are compared."""


@dataclass(frozen=True)
class PretrainingDiversity:
    """How many training tasks until policies learn new bandits in context, and not the old ones by heart?"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: small policies on two cores; paper: wider pools, five seeds, longer."""
    pools: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """Numbers of distinct training tasks; unlimited is always there, too."""
    n_arms: int = 5
    """Arms, with success probabilities U(0, 1)."""
    n_steps: int = 50
    """Pulls in a trial."""
    d_model: int = 32
    """Width of the residual stream."""
    n_layers: int = 2
    """Depth L."""
    steps: int = 1500
    """AdamW steps of every policy."""
    batch_tasks: int = 32
    """Tasks in each of them, drawn from the pool."""
    test_tasks: int = 1000
    """Tasks on which rewards are measured, of the pool and new ones."""
    seeds: int = 3
    """Ensemble size: seeds 0 ... seeds - 1 train side by side, each on its own pool."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class AlgorithmZoo:
    """Policies distilled from known bandit learners: does the verdict name the one that each was distilled from?"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: 5 policies of each of 15 sources on two cores; paper: 10, trained longer."""
    sources: tuple[str, ...] = (
        "lcb",
        "wary-lcb",
        "discounted-ucb",
        "curious-discounted-ucb",
        "gittins",
        "gradient-bandit",
        "slow-gradient-bandit",
        "exp3",
        "slow-exp3",
        "forgetting",
        "fast-forgetting",
        "explore-then-commit",
        "long-explore-then-commit",
        "thompson",
        "posterior-mean",
    )
    """Learners at fixed constants, to distil; another rival comes within .001 nats of those left out."""
    rivals: tuple[str, ...] = (
        "win-stay-lose-shift",
        "empirical-mean",
        "posterior-mean",
        "ucb",
        "ucb1",
        "lcb",
        "discounted-ucb",
        "thompson",
        "gittins",
        "gradient-bandit",
        "exp3",
        "constant-step",
        "forgetting",
        "explore-then-commit",
    )
    """Learners that every policy is compared with, at constants fitted to it."""
    n_arms: int = 4
    """Arms, with success probabilities U(0, 1)."""
    n_steps: int = 30
    """Pulls in a trial."""
    d_model: int = 32
    """Width of the residual stream."""
    n_layers: int = 2
    """Depth L."""
    n_heads: int = 2
    """Attention heads in a layer."""
    steps: int = 3000
    """AdamW steps of every policy; after 1000 those of discounted-ucb still leave 4 % of its laws."""
    batch_tasks: int = 32
    """Fresh tasks in each of them."""
    learning_rate: float = 1e-2
    """The largest learning rate, after warm-up."""
    contexts: int = 8
    """Designed contexts of every kind on which laws are compared; half of them are fitted to."""
    separation_contexts: int = 60
    """Others, on which sources are told from rivals beforehand."""
    seeds: int = 5
    """Policies of every source: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


# Analyses that share policies train them alike: whichever comes first leaves them for the others.
BANDIT_SMOKE: dict[str, Any] = {
    "seeds": 2,
    "imitation_steps": 3,
    "pretraining_steps": 3,
    "imitation_tasks": 8,
    "reinforcement_steps": 3,
    "reinforcement_tasks": 8,
    "n_steps": 20,
}
BANDIT_PAPER: dict[str, Any] = {
    "seeds": 5,
    "imitation_steps": 10_000,
    "pretraining_steps": 20_000,
    "reinforcement_steps": 6000,
}

BANDIT_ANALYSES = {
    "in-context-improvement": Analysis(
        InContextImprovement,
        {
            "smoke": BANDIT_SMOKE | {"test_tasks": 20},
            "laptop": {},
            "paper": BANDIT_PAPER,
        },
        {"smoke": "about 20 s", "laptop": "about 40 min", "paper": "about 6 h"},
    ),
    "behavioural-battery": Analysis(
        BehaviouralBattery,
        {
            "smoke": BANDIT_SMOKE | {"pulls": (1, 2)},
            "laptop": {},
            "paper": BANDIT_PAPER,
        },
        {"smoke": "about 20 s", "laptop": "3 min where the policies stand, else 40 more", "paper": "about 5 h"},
    ),
    "twin-test": Analysis(
        TwinTest,
        {
            "smoke": {
                "seeds": 2,
                "imitation_steps": 3,
                "pretraining_steps": 3,
                "imitation_tasks": 8,
                "n_steps": 20,
                "d_model": 8,
                "n_layers": 1,
                "contexts": 8,
            },
            "laptop": {},
            "paper": {"seeds": 5, "imitation_steps": 10_000, "pretraining_steps": 20_000},
        },
        {"smoke": "about 20 s", "laptop": "5 min where the policies stand, else 20 more", "paper": "about 2 h"},
    ),
    "pretraining-diversity": Analysis(
        PretrainingDiversity,
        {
            "smoke": {
                "pools": (1, 8),
                "n_steps": 8,
                "d_model": 16,
                "steps": 4,
                "batch_tasks": 4,
                "test_tasks": 20,
                "seeds": 2,
            },
            "laptop": {},
            "paper": {"pools": (1, 4, 16, 64, 256, 1024, 4096, 16384), "n_steps": 100, "steps": 10_000, "seeds": 5},
        },
        {"smoke": "about 20 s", "laptop": "about 20 min", "paper": "not measured; hours"},
    ),
    "algorithm-zoo": Analysis(
        AlgorithmZoo,
        {
            "smoke": {
                "sources": ("win-stay-lose-shift", "empirical-mean"),
                "rivals": ("win-stay-lose-shift", "empirical-mean"),
                "n_arms": 3,
                "n_steps": 6,
                "d_model": 8,
                "steps": 3,
                "batch_tasks": 6,
                "contexts": 4,
                "separation_contexts": 4,
                "seeds": 2,
            },
            "laptop": {},
            "paper": {"seeds": 10, "steps": 10_000, "batch_tasks": 64, "contexts": 16},
        },
        {"smoke": "about 20 s", "laptop": "about 50 min", "paper": "not measured; hours"},
    ),
}
