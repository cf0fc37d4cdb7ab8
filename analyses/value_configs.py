"""The settings of the analyses that train value estimators; everything that the paper varies (arXiv 2405.13861)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analyses.presets import Analysis, Preset

Task = Literal["boyan-chain", "loop", "random", "cartpole"]
Activation = Literal["linear", "relu", "softmax", "softmax-over-queries"]
Objective = Literal["td", "true-value", "monte-carlo"]
Component = Literal["kernel", "features", "reward"]
Architecture = Literal["linear", "relu", "softmax", "softmax-over-queries", "softmax-mlp"]


@dataclass(frozen=True)
class SubjectSettings:
    """A value estimator trained by multi-task TD: everything that the paper varies."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published scale."""
    n_layers: int = 3
    """Depth L: how many steps the network can take."""
    looped: bool = True
    """One layer applied L times, or (--no-looped) L separate layers."""
    activation: Activation = "linear"
    """Attention: linear, relu, softmax (over keys), or the paper's softmax over queries."""
    task: Task = "boyan-chain"
    """Family of tasks: Markov reward processes of three kinds, or CartPole seen through 16 tiles."""
    n_states: int = 10
    """States per process (cartpole always has its 16 cells)."""
    d_features: int = 4
    """Feature dimension d."""
    context_length: int = 30
    """Transitions in the context, n."""
    representable: bool = False
    """Draw rewards such that the true values are linear in the features."""
    gamma: float = 0.9
    """Discount factor."""
    n_tasks: int | None = None
    """Number of distinct training tasks; None draws a fresh task every time."""
    fixed: tuple[Component, ...] = ()
    """Components that all training tasks of a seed share: kernel, features, reward."""
    objective: Objective = "td"
    """What training minimises: semi-gradient TD error, distance to true values, or to Monte-Carlo returns."""
    train_tasks: int = 4000
    """Tasks visited in training, five Adam steps each."""
    learning_rate: float = 1e-3
    """Adam's learning rate."""
    weight_decay: float = 1e-6
    """Adam's coupled (L2) weight decay."""
    seeds: int = 10
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class TDEmergence(SubjectSettings):
    """Do transformers trained by multi-task TD come to implement TD? (arXiv 2405.13861, Fig. 2)"""


@dataclass(frozen=True)
class LayerRoles(SubjectSettings):
    """Which layers need the bootstrap block, and is its fading weight decay? (arXiv 2405.13861, L = 1, Seq L = 3)"""


@dataclass(frozen=True)
class TDProbe(SubjectSettings):
    """Do the layers of a trained network carry TD's errors, values and iterates, beyond what controls carry?"""

    probe_tasks: int = 300
    """Held-out tasks that the probes are fitted and scored on, split by task."""


@dataclass(frozen=True)
class EffectiveDiscount(SubjectSettings):
    """Why do trained weights read as TD with too small a discount, and what algorithm is it? One change at a time."""

    variations: tuple[str, ...] = (
        "gamma=0.5",
        "gamma=0.95",
        "n_layers=2",
        "n_layers=4",
        "looped=false",
        "objective=true-value",
        "objective=monte-carlo",
        "d_features=2",
        "representable=true",
    )
    """One-at-a-time changes of the baseline, which all other settings describe."""


@dataclass(frozen=True)
class BeyondLinear(SubjectSettings):
    """Do estimators with ReLU or softmax attention, or with MLPs, come to run TD too? (arXiv 2405.13861, 2605.07333)"""

    architectures: tuple[Architecture, ...] = ("linear", "relu", "softmax", "softmax-over-queries", "softmax-mlp")
    """What is trained: attention by its activation, and softmax attention followed by an MLP."""


@dataclass(frozen=True)
class RNNControl(SubjectSettings):
    """Does a recurrent network learn to estimate values in context as attention does? (arXiv 2405.13861, appendix)"""

    d_hidden: int = 4
    """Units per layer of the RNN, which has n_layers layers."""
    context_lengths: tuple[int, ...] = (1, 5, 10, 20, 30, 50, 99)
    """Transitions in the context at test time."""


@dataclass(frozen=True)
class CartPole(SubjectSettings):
    """Does TD emerge on CartPole, seen through tiles, as on Boyan chains? (arXiv 2405.13861, appendix)"""

    task: Task = "cartpole"
    """The task, cartpole."""
    context_length: int = 250
    """Transitions in the context, n."""


@dataclass(frozen=True)
class TaskDiversity(SubjectSettings):
    """How many distinct training tasks does TD need to emerge, and which of their components must vary?"""

    train_tasks: int = 2000
    """Tasks visited in training, five Adam steps each, however few of them are distinct."""
    pools: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    """Numbers of distinct training tasks; unlimited comes last by itself."""
    components: tuple[Component, ...] = ("kernel", "features", "reward")
    """Components to fix, each alone and all of them, with unlimited tasks."""
    variations: tuple[str, ...] = ("n_layers=1", "d_features=8")
    """One-at-a-time changes for which the threshold is looked for again."""
    variation_pools: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of distinct training tasks there."""


VALUE_ANALYSES = {
    "td-emergence": Analysis(
        TDEmergence,
        {"smoke": {"seeds": 2, "train_tasks": 64}, "laptop": {}, "paper": {"seeds": 30}},
        {"smoke": "about 20 s", "laptop": "about 2 min", "paper": "about 5 min"},
    ),
    "td-probe": Analysis(
        TDProbe,
        {"smoke": {"seeds": 2, "train_tasks": 64, "probe_tasks": 40}, "laptop": {}, "paper": {"seeds": 30}},
        {
            "smoke": "about 15 s",
            "laptop": "about 15 s once td-emergence has trained, 2 min before",
            "paper": "about 30 s once td-emergence has trained, 5 min before",
        },
    ),
    "layer-roles": Analysis(
        LayerRoles,
        {"smoke": {"seeds": 2, "train_tasks": 64}, "laptop": {}, "paper": {"seeds": 30}},
        {"smoke": "about 25 s", "laptop": "about 6 min", "paper": "about 9 min"},
    ),
    "beyond-linear": Analysis(
        BeyondLinear,
        {
            "smoke": {"seeds": 2, "train_tasks": 32},
            "laptop": {"seeds": 4, "train_tasks": 1000},
            "paper": {},
        },
        {"smoke": "about 2 min", "laptop": "about 7 min", "paper": "about 2 h"},
    ),
    "rnn-control": Analysis(
        RNNControl,
        {"smoke": {"seeds": 2, "train_tasks": 32}, "laptop": {"seeds": 4, "train_tasks": 1000}, "paper": {}},
        {"smoke": "about 30 s", "laptop": "about 3 min", "paper": "about 20 min"},
    ),
    "cartpole": Analysis(
        CartPole,
        {
            "smoke": {"seeds": 2, "train_tasks": 32, "context_length": 30},
            "laptop": {"seeds": 4, "train_tasks": 1000},
            "paper": {"train_tasks": 10000},
        },
        {"smoke": "about 20 s", "laptop": "about 3 min", "paper": "about 30 min"},
    ),
    "effective-discount": Analysis(
        EffectiveDiscount,
        {
            "smoke": {"seeds": 2, "train_tasks": 64, "variations": ("gamma=0.5",)},
            "laptop": {},
            "paper": {
                "seeds": 30,
                "variations": (
                    "train_tasks=16000",
                    "gamma=0.5",
                    "gamma=0.7",
                    "gamma=0.95",
                    "n_layers=2",
                    "n_layers=4",
                    "n_layers=6",
                    "looped=false",
                    "objective=true-value",
                    "objective=monte-carlo",
                    "d_features=2",
                    "d_features=8",
                    "representable=true",
                    "weight_decay=0",
                    "weight_decay=0.0001",
                ),
            },
        },
        {"smoke": "about 40 s", "laptop": "about 11 min", "paper": "about 2 h"},
    ),
    "task-diversity": Analysis(
        TaskDiversity,
        {
            "smoke": {"seeds": 2, "train_tasks": 64, "pools": (1, 16), "components": ("features",), "variations": ()},
            "laptop": {},
            "paper": {
                "seeds": 30,
                "train_tasks": 4000,
                "pools": tuple(2**k for k in range(13)),
                "variation_pools": tuple(2**k for k in range(13)),
            },
        },
        {"smoke": "about 30 s", "laptop": "about 14 min", "paper": "about 4 h"},
    ),
}
