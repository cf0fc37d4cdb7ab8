"""The settings of every analysis: frozen, free of torch (so that --help is quick), with presets for three budgets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Preset = Literal["smoke", "laptop", "paper"]
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
    variations: tuple[str, ...] = ()
    """One-at-a-time changes for which every pool is trained again: n_layers=1 d_features=8."""


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


@dataclass(frozen=True)
class Analysis:
    """One line of `learnscope list`: the config class, what each preset changes, how long each takes."""

    config: type
    presets: dict[str, dict[str, Any]]
    minutes: dict[str, str]

    @property
    def question(self) -> str:
        return (self.config.__doc__ or "").strip()

    def preset(self, name: str) -> Any:
        return self.config(preset=name, **self.presets[name])


ANALYSES = {
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
    "beyond-linear": Analysis(
        BeyondLinear,
        {
            "smoke": {"seeds": 2, "train_tasks": 32},
            "laptop": {"seeds": 4, "train_tasks": 1000},
            "paper": {},
        },
        {"smoke": "about 1 min", "laptop": "about 10 min", "paper": "about 2 h"},
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
    "model-recovery": Analysis(
        ModelRecovery,
        {"smoke": {"fitting_tasks": 40, "held_out_tasks": 60}, "laptop": {}, "paper": {}},
        {"smoke": "about 30 s", "laptop": "about 8 min", "paper": "about 20 min"},
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
            "smoke": {"seeds": 2, "train_tasks": 64, "pools": (1, 16), "components": ("features",)},
            "laptop": {},
            "paper": {
                "seeds": 30,
                "train_tasks": 4000,
                "pools": tuple(2**k for k in range(13)),
                "variations": ("n_layers=1", "d_features=8"),
            },
        },
        {"smoke": "about 30 s", "laptop": "about 8 min", "paper": "about 4 h"},
    ),
}
