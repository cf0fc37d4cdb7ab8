"""The rival banks: every learner by name, which of them contain which, and which are one function at a single step.

There is a bank for each kind of token: transitions, for value estimators, and labelled examples, for regression. In
autoregression the states that follow are the labels, and the same learners serve, with two that read only the last
tokens. Names are unique; what is said of names here holds in every bank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from algorithms.autoregressive import CopyLast, TwoToken
from algorithms.gradient_descent import GD, Averaging, GDPlusPlus, PreconditionedGD
from algorithms.learner import Learner, Scaled
from algorithms.least_squares import OLS, ConjugateGradient, Newton, Ridge
from algorithms.smoothers import KernelSmoother, NearestNeighbour
from algorithms.softmax_td import SoftmaxTD
from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import (
    LSTD,
    TD0,
    AverageRewardTD,
    MonteCarlo,
    Myopic,
    PreconditionedTD,
    ResidualGradient,
    RewardAverage,
    TDLambda,
    Zero,
)
from tasks.layout import TokenLayout

# Simpler learners before the richer ones that contain them.
RIVALS: dict[str, type] = {
    "zero": Zero,
    "reward-average": RewardAverage,
    "myopic": Myopic,
    "td0": TD0,
    "residual-gradient": ResidualGradient,
    "td-lambda": TDLambda,
    "td-plus-plus": TDPlusPlus,
    "preconditioned-td": PreconditionedTD,
    "average-reward-td": AverageRewardTD,
    "lstd": LSTD,
    "monte-carlo": MonteCarlo,
}
REGRESSION: dict[str, type] = {
    "zero": Zero,
    "averaging": Averaging,
    "gd": GD,
    "preconditioned-gd": PreconditionedGD,
    "gd-plus-plus": GDPlusPlus,
    "newton": Newton,
    "conjugate-gradient": ConjugateGradient,
    "ols": OLS,
    "ridge": Ridge,
    "nearest-neighbour": NearestNeighbour,
    "kernel-smoother": KernelSmoother,
}
AUTOREGRESSION: dict[str, type] = {**REGRESSION, "two-token": TwoToken, "copy-last": CopyLast}

# Their predictions are no linear function of the query's features.
NONLINEAR: dict[str, type] = {
    "softmax-td": SoftmaxTD,
    "nearest-neighbour": NearestNeighbour,
    "kernel-smoother": KernelSmoother,
}
LEARNERS = {**RIVALS, **AUTOREGRESSION, **NONLINEAR}

# simpler -> the next richer ones, which reduce to it at some value of their constants
NESTING: dict[str, tuple[str, ...]] = {
    "zero": ("reward-average", "myopic", "average-reward-td", "softmax-td", "averaging", "gd"),
    "reward-average": ("myopic",),
    "myopic": ("td0", "residual-gradient"),
    "td0": ("td-lambda", "td-plus-plus", "preconditioned-td"),
    "averaging": ("gd",),
    "gd": ("preconditioned-gd",),
    "preconditioned-gd": ("gd-plus-plus",),
    "ols": ("ridge",),
}

# At one step from w = 0 nothing has been bootstrapped, w = alpha E[R phi], or corrected, w = alpha E[y x]
# (preconditioned where C = alpha I). A name that is in two classes belongs to the later one.
ONE_STEP = (
    ("reward-average", "myopic", "td0", "td-plus-plus", "preconditioned-td"),
    ("averaging", "gd", "gd-plus-plus", "preconditioned-gd"),
    ("gd-plus-plus", "preconditioned-gd"),
)

# They regress on rewards or returns: no value that they estimate enters a target.
NO_BOOTSTRAP = ("zero", "reward-average", "myopic", "monte-carlo")

# Where a richer learner's constant stands when it is the simpler one.
NEUTRAL = {
    "step_size": 0.0,
    "gamma": 0.0,
    "lam": 0.0,
    "from_features": 0.0,
    "from_next": 0.0,
    "rewrite": 0.0,
    "ridge": 1e-8,
    "scale": 1.0,
}


def bank_for(layout: TokenLayout) -> dict[str, type]:
    """The standard rivals of a network that reads such tokens."""
    if "reward" in layout:
        return RIVALS
    return REGRESSION if "label" in layout else AUTOREGRESSION


def build(name: str, n_steps: int, constants: Mapping[str, float | Tensor] | None = None) -> Learner:
    """The named learner; those that iterate take n_steps (averaging takes one, direct ones solve).

    With a "scale" among the constants, the learner times that. Raises KeyError for an unknown name.
    """
    rival: Any = LEARNERS[name]
    own = dict(constants or {})
    scale = own.pop("scale", None)
    learner = rival(**({"n_steps": n_steps} if iterates(name) else {}), **own)
    return learner if scale is None else Scaled(learner, scale)


def iterates(name: str) -> bool:
    """Whether the named learner has as many steps as it is told."""
    return any(f.name == "n_steps" and f.default is MISSING for f in fields(LEARNERS[name]))


def next_richer(n_steps: int, shared: bool) -> dict[str, tuple[str, ...]]:
    """The nesting at this depth: a learner whose steps share their constants cannot stop after the first one."""
    if shared and n_steps > 1:
        return {**NESTING, "reward-average": (), "averaging": ()}
    return NESTING


def richer(n_steps: int, shared: bool) -> dict[str, frozenset[str]]:
    """For every rival all those that contain it: the transitive closure of the nesting."""
    steps = next_richer(n_steps, shared)

    def above(name: str) -> frozenset[str]:
        return frozenset().union(*({other} | above(other) for other in steps.get(name, ())))

    return {name: above(name) for name in LEARNERS}


def one_function(name: str, n_steps: int) -> frozenset[str]:
    """The rivals that are algebraically one function with the named one at this depth, itself among them."""
    classes = [names for names in ONE_STEP if n_steps == 1 and name in names]
    return frozenset(classes[-1] if classes else (name,))
