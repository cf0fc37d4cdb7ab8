"""The rival bank: every learner by name, which of them contain which, and which are one function at a single step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from algorithms.learner import Learner
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

# Not of the standard bank: their values are no linear function of the query's features, as those of softmax networks.
NONLINEAR: dict[str, type] = {"softmax-td": SoftmaxTD}
LEARNERS = {**RIVALS, **NONLINEAR}

# simpler -> the next richer ones, which reduce to it at some value of their constants
NESTING: dict[str, tuple[str, ...]] = {
    "zero": ("reward-average", "myopic", "average-reward-td", "softmax-td"),
    "reward-average": ("myopic",),
    "myopic": ("td0", "residual-gradient"),
    "td0": ("td-lambda", "td-plus-plus", "preconditioned-td"),
}

# At one step from w = 0 nothing has been bootstrapped: w = alpha E[R phi] (preconditioned TD where C = alpha I).
ONE_STEP = ("reward-average", "myopic", "td0", "td-plus-plus", "preconditioned-td")

# They regress on rewards or returns: no value that they estimate enters a target.
NO_BOOTSTRAP = ("zero", "reward-average", "myopic", "monte-carlo")

# Where a richer learner's constant stands when it is the simpler one.
NEUTRAL = {"step_size": 0.0, "gamma": 0.0, "lam": 0.0, "from_features": 0.0, "from_next": 0.0}


def build(name: str, n_steps: int, constants: Mapping[str, float | Tensor] | None = None) -> Learner:
    """The named learner; those that iterate take n_steps (reward averaging takes one, direct ones solve).

    Raises KeyError for an unknown name.
    """
    rival: Any = LEARNERS[name]
    iterates = any(f.name == "n_steps" and f.default is MISSING for f in fields(rival))
    return rival(**({"n_steps": n_steps} if iterates else {}), **(constants or {}))


def next_richer(n_steps: int, shared: bool) -> dict[str, tuple[str, ...]]:
    """The nesting at this depth: a learner whose steps share their constants cannot stop after the first one."""
    if shared and n_steps > 1:
        return {**NESTING, "reward-average": ()}
    return NESTING


def richer(n_steps: int, shared: bool) -> dict[str, frozenset[str]]:
    """For every rival all those that contain it: the transitive closure of the nesting."""
    steps = next_richer(n_steps, shared)

    def above(name: str) -> frozenset[str]:
        return frozenset().union(*({other} | above(other) for other in steps.get(name, ())))

    return {name: above(name) for name in LEARNERS}


def one_function(n_steps: int) -> frozenset[str]:
    """The rivals that are algebraically one function at this depth."""
    return frozenset(ONE_STEP) if n_steps == 1 else frozenset()
