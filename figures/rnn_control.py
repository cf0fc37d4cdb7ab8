"""The recurrent control: errors against context length, similarity to TD, and the distance to every fitted rival."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.rivals import draw_distances, spread
from figures.style import LEARNERS, SUBJECT

LOOKS: dict[str, dict[str, Any]] = {
    "rnn": {"label": "tanh RNN", "color": "#EE3377", "marker": "s"},
    "attention": {"label": "linear attention", **SUBJECT},
    "td0": {"label": "batch TD(0)", **LEARNERS["td0"]},
    "zero": {"label": "zero predictor", **LEARNERS["zero"]},
}
NAMES = {"rnn": "tanh RNN", "attention": "linear attention"}
SCORES = {"skill": "skill\nover zero", "iws": "IWS\nto batch TD", "r_squared": "linear in\nthe query, R²"}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Three panels from the tables context, scores and rivals; thin lines and dots are seeds."""
    figure, (context, scores, rivals) = plt.subplots(1, 3, figsize=(12, 3.8))
    _context(context, select(tables["context"], metric="msve"))
    _scores(scores, tables["scores"])
    draw_distances(rivals, NAMES, tables["rivals"])
    figure.suptitle("The recurrent control: the same training, no product of two tokens")
    return figure


def _context(axes: Axes, rows: pd.DataFrame) -> None:
    for name, look in LOOKS.items():
        mine = select(rows, subject=name)
        for _, seed in mine.groupby("seed"):
            axes.plot(seed["context_length"], seed["value"], color=look["color"], linewidth=0.5, alpha=0.4)
        means = mine.groupby("context_length")["value"].mean()
        axes.plot(means.index, means, **look)
    axes.set(title="Error of the values", xlabel="context length n (transitions)", ylabel="mean squared value error")
    axes.set_yscale("log")  # one transition can be far off, and what follows would be a line on the floor
    axes.legend()


def _scores(axes: Axes, scores: pd.DataFrame) -> None:
    for offset, name in zip((-0.15, 0.15), NAMES, strict=True):
        look = LOOKS[name]
        for place, metric in enumerate(SCORES):
            values = select(scores, subject=name, learner="subject", metric=metric)["value"]
            label = look["label"] if place == 0 else None
            shown = {key: look[key] for key in ("color", "marker")}
            axes.plot(spread(place + offset, len(values)), values, linestyle="none", alpha=0.7, label=label, **shown)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(len(SCORES)), list(SCORES.values()))
    axes.set(title="At the context length of the training")
    axes.legend()
