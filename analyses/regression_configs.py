"""The settings of the analyses of in-context regression and autoregression (arXiv 2306.00297, 2402.05787)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from analyses.presets import Analysis, Preset

Parameters = Literal["sparse", "full", "free"]
Optimiser = Literal["gauss-newton", "adamw"]


@dataclass(frozen=True)
class RegressionSettings:
    """Networks trained on noise-free linear regression: everything that the analyses of their weights share."""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published scale."""
    d_features: int = 5
    """Dimension of covariates and weights, d."""
    context_length: int = 20
    """Labelled examples in the context, n."""
    rotation: int = 0
    """Seed of the rotation of the covariance's eigenvectors."""
    steps: int = 90
    """Iterations of Gauss-Newton on at most 10000 prompts; a few on more of them follow."""
    prompts: int = 200_000
    """Prompts in the last fixed batch."""
    test_prompts: int = 1_000_000
    """Fresh prompts on which networks and rivals are compared."""
    contexts: int = 100_000
    """Contexts on which the rivals' own optima are found."""
    optimiser: Optimiser = "gauss-newton"
    """adamw, as published: `steps` of it on `prompts` prompts, new ones every 100 steps, and no Gauss-Newton."""
    seeds: int = 5
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class SingleLayerOptimum(RegressionSettings):
    """Is one trained layer the preconditioned gradient step of Theorems 1 and 5? (arXiv 2306.00297)"""

    steps: int = 20
    """Iterations of Gauss-Newton on at most 10000 prompts; a few on more of them follow, then BFGS without prompts."""
    prompts: int = 100_000
    """Prompts in the last fixed batch."""


@dataclass(frozen=True)
class PreconditionedGDEmergence(RegressionSettings):
    """Do L layers trained on regression run preconditioned gradient descent, or GD++? (arXiv 2306.00297)"""

    n_layers: int = 3
    """Depth L."""
    parameters: tuple[Parameters, ...] = ("sparse", "full")
    """Which entries of P and Q are trained: Q's block of features (sparse), P's too (full), all (free)."""


@dataclass(frozen=True)
class LossVsDepth(PreconditionedGDEmergence):
    """How does the loss fall with depth, beside the rivals' own optima and the published baselines? (2306.00297)"""

    n_layers: int = 3
    """Depths 1 ... L; trained on fixed batches, some seeds of the full family with 4 layers fail on new prompts."""
    prompts: int = 50_000
    """Prompts in the last fixed batch."""


@dataclass(frozen=True)
class LossVsContext(PreconditionedGDEmergence):
    """How does the loss fall with the context, beside the rivals' own optima and published baselines? (2306.00297)"""

    parameters: tuple[Parameters, ...] = ("sparse",)
    """Which entries of P and Q are trained; fixed batches cannot train the full family on contexts below about 16."""
    context_lengths: tuple[int, ...] = (4, 8, 12, 16, 20)
    """Labelled examples in the context, a network each."""
    steps: int = 25
    """Iterations of Gauss-Newton on at most 10000 prompts, a few on more of them follow; the full family needs 90."""
    prompts: int = 50_000
    """Prompts in the last fixed batch."""


@dataclass(frozen=True)
class PoolBayesOrRidge:
    """Does linear attention learn its training tasks by heart, or to solve new ones? (arXiv 2306.15063)"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published dimension, every pool."""
    n_layers: int = 3
    """Depth L."""
    d_features: int = 5
    """Dimension of covariates and weights, d."""
    context_length: int = 16
    """Labelled examples in the context, n."""
    noise: float = 0.5
    """Standard deviation of label noise."""
    pools: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Numbers of distinct training tasks; unlimited comes last by itself."""
    parameters: tuple[Parameters, ...] = ("full", "free")
    """Which entries of P and Q are trained: Q's block of features (sparse), P's too (full), all (free)."""
    steps: int = 60
    """Iterations of Gauss-Newton on one batch of prompts, before a few on a larger one."""
    prompts: int = 5000
    """Prompts in that batch, a tenth of the larger one."""
    seeds: int = 6
    """Ensemble size: seeds 0 ... seeds - 1 train side by side; six are the fewest with an interval for their median."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class LinearAutoregression:
    """Which rule continues a linear sequence: a gradient step, or the last two states? (arXiv 2402.05787)"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published scale."""
    d_augmented: int = 5
    """Dimension of the states behind augmented tokens."""
    pairs: int = 50
    """Pairs (s_t, s_{t+1}) in the longest augmented prefix."""
    d_plain: int = 10
    """Dimension of the states that are tokens themselves; even."""
    positions: int = 20
    """States in the longest plain prefix."""
    augmented_steps: int = 400
    """Adam steps on augmented tokens, for commuting and for Haar operators."""
    prompts: int = 16
    """Sequences in each of these steps."""
    unitary_steps: int = 100
    """Steps of gradient descent on the population loss of diagonal unitary operators."""
    orthogonal_steps: int = 10_000
    """The same for rotations."""
    orthogonal_learning_rate: float = 1e-3
    """Their learning rate, the authors'; from about 0.002 it is unstable."""
    phase_scales: tuple[float, ...] = (1.0, 50.0, 100.0, 200.0, 300.0)
    """Where positions alone are trained: phases are U(0, 2 pi) over each of these."""
    test_sequences: int = 256
    """Held-out sequences on which networks and rules are compared."""
    fitting_sequences: int = 12
    """Sequences that the constants of the rules are fitted on, for the verdict."""
    seeds: int = 10
    """Ensemble size: seeds 0 ... seeds - 1 train side by side."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


@dataclass(frozen=True)
class LayersVsIterations:
    """Do layers that match Newton's iterations one by one show that a network runs Newton? (arXiv 2310.17086)"""

    preset: Preset = "laptop"
    """smoke: seconds, no science; laptop: minutes on two cores; paper: the published dimension and context."""
    d_features: int = 5
    """Dimension of covariates and weights, d."""
    context_length: int = 8
    """Labelled examples in the context, n; near d, contexts are badly conditioned, each in directions of its own."""
    depth: int = 8
    """Layers of the constructed network."""
    best_depth: int = 4
    """Depth up to which networks are constructed with the best constants for their depth."""
    trained_layers: tuple[int, ...] = (3,)
    """Depths at which networks are trained, too."""
    train_prompts: int = 5000
    """Prompts of their training by Gauss-Newton, and ten times as many at its end."""
    gd_iterations: int = 512
    """Iterations of gradient descent to match layers with."""
    newton_iterations: int = 16
    """Iterations of Newton's method to match layers with."""
    n_tasks: int = 300
    """Prompts per seed."""
    seeds: int = 5
    """Sets of prompts, and ensemble size: seeds 0 ... seeds - 1 train side by side."""
    device: str = "cpu"
    """Where to train: cpu or cuda."""
    out: Path = Path("runs")
    """Folder for runs, tables and figures."""


SMOKE = {"seeds": 2, "steps": 3, "prompts": 2000, "test_prompts": 4000, "contexts": 500}

REGRESSION_ANALYSES = {
    "single-layer-optimum": Analysis(
        SingleLayerOptimum,
        {"smoke": SMOKE, "laptop": {}, "paper": {"seeds": 10, "prompts": 500_000}},
        {"smoke": "about 10 s", "laptop": "about 2 min", "paper": "about 15 min"},
    ),
    "preconditioned-gd": Analysis(
        PreconditionedGDEmergence,
        {
            "smoke": SMOKE,
            "laptop": {},
            "paper": {"optimiser": "adamw", "steps": 100_000, "prompts": 20_000},
        },
        {"smoke": "about 20 s", "laptop": "about 7 min", "paper": "about 12 h"},
    ),
    "loss-vs-depth": Analysis(
        LossVsDepth,
        {"smoke": {**SMOKE, "n_layers": 2}, "laptop": {}, "paper": {"n_layers": 4, "prompts": 400_000}},
        {"smoke": "about 30 s", "laptop": "about 8 min", "paper": "about 2 h"},
    ),
    "loss-vs-context": Analysis(
        LossVsContext,
        {
            "smoke": {**SMOKE, "n_layers": 2, "context_lengths": (4, 8)},
            "laptop": {},
            "paper": {"context_lengths": tuple(range(2, 21, 2)), "prompts": 400_000},
        },
        {"smoke": "about 30 s", "laptop": "about 8 min", "paper": "about 2 h"},
    ),
    "pool-bayes-or-ridge": Analysis(
        PoolBayesOrRidge,
        {
            "smoke": {"seeds": 2, "pools": (4,), "steps": 10, "prompts": 200},
            "laptop": {},
            "paper": {"seeds": 10, "d_features": 8, "pools": tuple(2**k for k in range(13)), "prompts": 20_000},
        },
        {"smoke": "about 20 s", "laptop": "about 7 min", "paper": "about 4 h"},
    ),
    "linear-autoregression": Analysis(
        LinearAutoregression,
        {
            "smoke": {
                "seeds": 2,
                "pairs": 8,
                "d_plain": 4,
                "positions": 6,
                "augmented_steps": 20,
                "unitary_steps": 20,
                "orthogonal_steps": 20,
                "test_sequences": 16,
                "phase_scales": (1.0, 50.0),
            },
            "laptop": {},
            "paper": {"augmented_steps": 3000, "prompts": 64, "orthogonal_steps": 100_000},
        },
        {"smoke": "about 5 s", "laptop": "about 1 min", "paper": "about 25 min"},
    ),
    "layers-vs-iterations": Analysis(
        LayersVsIterations,
        {
            "smoke": {
                "seeds": 2,
                "depth": 4,
                "best_depth": 2,
                "trained_layers": (1,),
                "train_prompts": 200,
                "gd_iterations": 64,
                "n_tasks": 30,
            },
            "laptop": {},
            "paper": {"d_features": 20, "context_length": 40, "trained_layers": (3, 4)},
        },
        {"smoke": "about 15 s", "laptop": "about 2 min", "paper": "about 2 h"},
    ),
}
