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
LEARNERS: dict[str, dict[str, Any]] = {
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
    "zero": "zero predictor",
}


def house_style() -> AbstractContextManager[None]:
    """Within it, matplotlib draws and saves in the house style, whatever the reader's own settings are."""
    return matplotlib.style.context(["default", STYLE])
