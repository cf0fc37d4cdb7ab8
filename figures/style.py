"""The look that all figures share: the style sheet, and one fixed colour and marker for every learner."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib.style

STYLE = Path(__file__).with_name("learnscope.mplstyle")
SUBJECT: dict[str, Any] = {"color": "#000000", "marker": "D"}
PUBLISHED: dict[str, Any] = {"color": "#000000", "marker": "x", "linestyle": "none"}

# Every pair stays apart in simulated protanopia, deuteranopia and tritanopia (CIELAB distance 14 or more).
VALUE_LEARNERS: dict[str, dict[str, Any]] = {
    "td0": {"color": "#0072B2", "marker": "o"},
    "td-lambda": {"color": "#56B4E9", "marker": "v"},
    "td-plus-plus": {"color": "#220066", "marker": "P"},
    "preconditioned-td": {"color": "#009988", "marker": "s"},
    "residual-gradient": {"color": "#D55E00", "marker": "^"},
    "average-reward-td": {"color": "#660033", "marker": "<"},
    "softmax-td": {"color": "#9911FF", "marker": "X"},
    "myopic": {"color": "#E69F00", "marker": "h"},
    "reward-average": {"color": "#DDCC77", "marker": ">"},
    "lstd": {"color": "#005522", "marker": "p"},
    "monte-carlo": {"color": "#EE3377", "marker": "*"},
    "zero": {"color": "#BBBBBB", "marker": "."},
}
# The counterparts look alike: gradient descent as TD(0), GD++ as TD++, least squares as LSTD, and so on.
EXAMPLE_LEARNERS = {
    "gd": VALUE_LEARNERS["td0"],
    "preconditioned-gd": VALUE_LEARNERS["preconditioned-td"],
    "gd-plus-plus": VALUE_LEARNERS["td-plus-plus"],
    "newton": VALUE_LEARNERS["residual-gradient"],
    "conjugate-gradient": VALUE_LEARNERS["td-lambda"],
    "ols": VALUE_LEARNERS["lstd"],
    "ridge": VALUE_LEARNERS["monte-carlo"],
    "pool-bayes": VALUE_LEARNERS["average-reward-td"],
    "averaging": VALUE_LEARNERS["reward-average"],
    "nearest-neighbour": {"color": "#99CC99", "marker": "d"},
    "kernel-smoother": VALUE_LEARNERS["softmax-td"],
    "two-token": VALUE_LEARNERS["myopic"],
    "copy-last": {"color": "#FF00FF", "marker": "8"},
    "zero": VALUE_LEARNERS["zero"],
}
LEARNERS = {**VALUE_LEARNERS, **EXAMPLE_LEARNERS}
LABELS = {
    "td0": "TD(0)",
    "td-lambda": "TD(λ)",
    "td-plus-plus": "TD++",
    "preconditioned-td": "preconditioned TD",
    "residual-gradient": "residual gradient",
    "average-reward-td": "average-reward TD",
    "softmax-td": "softmax TD",
    "myopic": "myopic (γ = 0)",
    "reward-average": "reward average",
    "lstd": "LSTD",
    "monte-carlo": "Monte Carlo",
    "gd": "gradient descent",
    "preconditioned-gd": "preconditioned GD",
    "gd-plus-plus": "GD++",
    "newton": "Newton",
    "conjugate-gradient": "conjugate gradients",
    "ols": "OLS",
    "ridge": "ridge",
    "pool-bayes": "Bayes for the pool",
    "averaging": "averaging",
    "nearest-neighbour": "nearest neighbour",
    "kernel-smoother": "kernel smoother",
    "two-token": "two-token rule",
    "copy-last": "copy the last",
    "zero": "zero predictor",
}


def house_style() -> AbstractContextManager[None]:
    """Within it, matplotlib draws and saves in the house style, whatever the reader's own settings are."""
    return matplotlib.style.context(["default", STYLE])
