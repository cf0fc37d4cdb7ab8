"""The settings of the analyses of policies in decision problems: rings, rooms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from analyses.presets import Analysis, Preset

ActionObjective = Literal[
    "value-td",
    "q-sarsa",
    "q-regression",
    "greedy-imitation",
    "optimal-imitation",
    "distil-sarsa",
    "distil-policy-gradient",
    "policy-gradient",
]
SparseFamily = Literal["ring", "tree", "chain"]
ControlObjective = Literal[
    "decision-pretrained",
    "distilled from q-learning",
    "distilled from certainty-equivalence",
    "distilled from successor-representation",
    "q-learning on random walks",
    "certainty-equivalence on random walks",
    "successor-representation on random walks",
    "reinforced",
    "reinforced after pretraining",
]


@dataclass(frozen=True)
class ValueVsPolicy:
    """Trained to act instead of to estimate values, does the same network still run TD? (linear attention)"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: 20 seeds on two cores; paper: the same for three times as long."""
    family: SparseFamily = "ring"
    """Decision tasks of few successors and sparse reward, in which greed for the next reward earns little."""
    objectives: tuple[ActionObjective, ...] = (
        "value-td",
        "q-sarsa",
        "q-regression",
        "optimal-imitation",
        "distil-sarsa",
        "distil-policy-gradient",
        "policy-gradient",
    )
    """What networks are trained for, each an ensemble of its own. On rings greedy-imitation is optimal-imitation."""
    controls: tuple[ActionObjective, ...] = ("q-sarsa", "optimal-imitation")
    """Objectives trained again with rewards in random order, and again without next pairs."""
    n_layers: int = 5
    """Turns of the looped layer, L."""
    context_length: int = 80
    """Transitions in the context, n."""
    gamma: float = 0.9
    """Discount of values and returns, and of the next pair in a token."""
    steps: int = 2000
    """Adam steps, on fresh tasks each; the learning rate falls to zero as a cosine."""
    tasks_per_update: int = 32
    """Tasks in each of them."""
    learning_rate: float = 0.01
    """The first learning rate."""
    fitting_tasks: int = 48
    """Tasks on which the rivals' constants are fitted."""
    test_tasks: int = 150
    """Held-out tasks on which everything is measured."""
    seeds: int = 20
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class RingSettings:
    """Rings, and the policies that imitate on them."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: small policies on two cores; paper: wider, five seeds, for longer."""
    n_states: int = 7
    """States of a ring, in a hidden random order."""
    n_steps: int = 32
    """Steps that a policy sees."""
    d_model: int = 32
    """Width of the residual stream."""
    n_layers: int = 3
    """Depth L."""
    n_heads: int = 4
    """Attention heads in a layer."""
    imitation_steps: int = 4000
    """Steps of decision pretraining and of every distillation."""
    imitation_tasks: int = 16
    """Fresh tasks in each of them."""
    seeds: int = 3
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class ControlSettings(RingSettings):
    """Policies trained on rings: everything that the analyses of what they do in decision problems share."""

    objectives: tuple[ControlObjective, ...] = get_args(ControlObjective)[:3]
    """What policies are trained for, each an ensemble of its own."""
    reinforcement_steps: int = 300
    """Steps of reinforcement pretraining."""
    reinforcement_tasks: int = 64
    """Fresh tasks in each of them."""


@dataclass(frozen=True)
class ControlZoo(RingSettings):
    """Policies distilled from known control learners: does the verdict name the one that each was distilled from?"""

    sources: tuple[str, ...] = (
        "monte-carlo-control",
        "policy-gradient",
        "episodic-control",
        "q-learning",
        "certainty-equivalence",
        "successor-representation",
    )
    """Learners at fixed constants, to distil along random walks; those left out are relatives of one that is here."""
    own_walks: tuple[str, ...] = ("q-learning", "certainty-equivalence", "successor-representation")
    """Sources whose laws are learnt again, along their own walks."""
    shuffled: tuple[str, ...] = ("monte-carlo-control",)
    """Sources whose lessons are given again, their rewards in random order: controls."""
    rivals: tuple[str, ...] = (
        "monte-carlo-control",
        "sarsa",
        "expected-sarsa",
        "q-learning",
        "policy-gradient",
        "actor-critic",
        "certainty-equivalence",
        "ucb-vi",
        "successor-representation",
        "episodic-control",
    )
    """Learners that every policy is compared with, at constants fitted to it; posterior-sampling takes hours more."""
    contexts: int = 12
    """Contexts of every kind on which laws are compared; half of them are fitted to."""
    separation_contexts: int = 12
    """Others, on which sources are told from rivals beforehand."""


@dataclass(frozen=True)
class ControlBattery(ControlSettings):
    """What do policies trained on rings say where learners with and without a model differ? (no fitting, only signs)"""


@dataclass(frozen=True)
class PolicyProbes(ControlSettings):
    """What do policies carry, and what do they use: values, a model of transitions, a cached map? (rings, bandits)"""

    test_tasks: int = 600
    """Held-out tasks on which everything is measured."""
    bandits: bool = True
    """Probe the policies of in-context-improvement, too."""


@dataclass(frozen=True)
class AcrossEpisodes:
    """Does a policy distilled from a learner get better from episode to episode, weights untouched? (2210.14215)"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: a small room on two cores; paper: the published room and episodes."""
    size: int = 5
    """Cells on a side of the dark room."""
    held_out: float = 0.3
    """Share of the goals that no training task has."""
    horizon: int = 10
    """Steps of an episode."""
    episodes: int = 24
    """Episodes that a policy sees, and acts for."""
    keep_every: int = 3
    """Of the source's episodes every one of so many is kept."""
    histories: int = 2000
    """Learning histories of the source."""
    context_episodes: tuple[float, ...] = (0.5, 4.0)
    """Contexts, in episodes, with which distillation is repeated."""
    d_model: int = 64
    """Width of the residual stream."""
    n_layers: int = 3
    """Depth L."""
    n_heads: int = 2
    """Attention heads in a layer."""
    steps: int = 1200
    """AdamW steps."""
    batch_tasks: int = 12
    """Histories in each of them; of shorter windows as many more."""
    learning_rate: float = 4e-3
    """The largest learning rate, after warm-up."""
    test_tasks: int = 120
    """Tasks with held-out goals, shared by all policies and learners."""
    seeds: int = 3
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""

    @property
    def n_steps(self) -> int:
        """Of all episodes."""
        return self.horizon * self.episodes

    def context(self, episodes: float) -> int:
        """The steps of so many episodes."""
        return round(episodes * self.horizon)


# Analyses that share policies train them alike: whichever comes first leaves them for the others.
CONTROL_SMOKE: dict[str, Any] = {
    "d_model": 16,
    "n_layers": 2,
    "imitation_steps": 3,
    "imitation_tasks": 4,
    "reinforcement_steps": 2,
    "reinforcement_tasks": 4,
    "seeds": 2,
}
CONTROL_PAPER: dict[str, Any] = {
    "objectives": get_args(ControlObjective),
    "seeds": 5,
    "n_steps": 64,
    "d_model": 64,
    "imitation_steps": 20_000,
    "imitation_tasks": 64,
    "reinforcement_steps": 6000,
}

CONTROL_ANALYSES = {
    "value-vs-policy": Analysis(
        ValueVsPolicy,
        {
            "smoke": {
                "seeds": 2,
                "objectives": ("q-sarsa", "optimal-imitation"),
                "controls": (),
                "steps": 10,
                "tasks_per_update": 4,
                "fitting_tasks": 12,
                "test_tasks": 20,
            },
            "laptop": {},
            "paper": {"steps": 6000, "tasks_per_update": 64},
        },
        {"smoke": "about 30 s", "laptop": "50 min to train; to examine not measured", "paper": "not measured; hours"},
    ),
    "control-battery": Analysis(
        ControlBattery,
        {
            "smoke": CONTROL_SMOKE | {"n_steps": 12},
            "laptop": {},
            "paper": CONTROL_PAPER,
        },
        {
            "smoke": "about 20 s",
            "laptop": "1 min where the policies stand, else 20 more",
            "paper": "not measured; hours",
        },
    ),
    "policy-probes": Analysis(
        PolicyProbes,
        {
            "smoke": CONTROL_SMOKE
            | {
                "objectives": ("decision-pretrained", "distilled from q-learning"),
                "n_states": 5,
                "n_steps": 8,
                "test_tasks": 90,
            },
            "laptop": {},
            "paper": CONTROL_PAPER,
        },
        {"smoke": "about 20 s", "laptop": "about 30 min", "paper": "not measured; hours"},
    ),
    "control-zoo": Analysis(
        ControlZoo,
        {
            "smoke": {
                "sources": ("policy-gradient", "q-learning"),
                "own_walks": ("q-learning",),
                "shuffled": ("q-learning",),
                "rivals": ("policy-gradient", "q-learning"),
                "n_states": 5,
                "n_steps": 4,
                "d_model": 16,
                "n_layers": 2,
                "imitation_steps": 3,
                "imitation_tasks": 4,
                "contexts": 4,
                "separation_contexts": 4,
                "seeds": 2,
            },
            "laptop": {},
            "paper": {
                "rivals": (*ControlZoo.rivals, "posterior-sampling"),
                "contexts": 16,
                "separation_contexts": 60,
                **{name: CONTROL_PAPER[name] for name in ("seeds", "n_steps", "d_model")},
                **{name: CONTROL_PAPER[name] for name in ("imitation_steps", "imitation_tasks")},
            },
        },
        {
            "smoke": "about 30 s",
            "laptop": "about 15 min where the policies stand, else 20 more",
            "paper": "not measured; hours",
        },
    ),
    "across-episodes": Analysis(
        AcrossEpisodes,
        {
            "smoke": {
                "size": 3,
                "horizon": 4,
                "episodes": 4,
                "keep_every": 2,
                "histories": 20,
                "context_episodes": (0.5, 1.0),
                "d_model": 16,
                "steps": 4,
                "batch_tasks": 4,
                "test_tasks": 12,
                "seeds": 2,
            },
            "laptop": {},
            "paper": {
                "size": 9,
                "held_out": 0.2,
                "horizon": 20,
                "episodes": 20,
                "keep_every": 20,
                "histories": 2000,
                "d_model": 64,
                "n_layers": 4,
                "n_heads": 4,
                "steps": 20_000,
                "batch_tasks": 64,
                "learning_rate": 1e-3,
                "seeds": 5,
            },
        },
        {"smoke": "about 20 s", "laptop": "about 40 min", "paper": "not measured; a GPU"},
    ),
}
