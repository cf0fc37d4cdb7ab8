"""Layers of known networks against the iterations of Newton and of gradient descent: matches, and how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.tables import select
from figures.style import LEARNERS, PUBLISHED, SUBJECT

KNOWN: dict[str, dict[str, Any]] = {
    "GD++ network": {**LEARNERS["gd-plus-plus"], "label": "GD++ network"},
    "best GD++ network of each depth": {
        **LEARNERS["preconditioned-gd"],
        "label": "GD++, best constants of each depth",
    },
    "Newton": {**LEARNERS["newton"], "label": "Newton itself"},
    "gradient descent": {**LEARNERS["gd"], "label": "gradient descent itself"},
}
PUBLISHED_SLOPE = 3.0  # Newton iterations per layer, layers 3 to 9 of a softmax transformer


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Above: the best match by layer, in Newton's iterations and in GD's. Below: how good Newton's best match is."""
    match = tables["match"]
    figure = Figure(figsize=(10, 7.5))
    (newton, gd), (similarity, unexplained) = figure.subplots(2, 2)
    for axes, learner in ((newton, "newton"), (gd, "gd")):
        _curves(axes, select(match, learner=learner, metric="best_match"))
        _curves(axes, select(match, learner=learner, metric="matched_iterations"), dotted=True)
    _predictions(newton, tables["degrees"])
    newton.set(title="Matched with Newton's method", ylabel="iterations")
    gd.set(title="Matched with gradient descent", ylabel="iterations", yscale="log")
    similar, equal = Line2D([], [], color="0.3", marker="o"), Line2D([], [], color="0.3", linestyle=":")
    gd.legend([similar, equal], ["most similar errors", "errors of equal size"], loc="lower right")

    rows = select(match, learner="newton")
    _curves(similarity, select(rows, metric="sime"))
    similarity.set(title="Newton's best match: similarity of errors", ylabel="SimE", ylim=(-0.02, 1.02))
    _curves(unexplained, select(rows, metric="unexplained"))
    unexplained.set(
        title="Newton's nearest iterate: what it leaves", ylabel="share of the layer's error", ylim=(-0.02, 1.05)
    )
    for axes in (newton, gd, similarity, unexplained):
        axes.set_xlabel("layer")
    figure.legend(*newton.get_legend_handles_labels(), loc="outside lower center", ncols=4, title="mean over seeds")
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, *, dotted: bool = False) -> None:
    """Means over seeds by layer, from the first layer on, with all seeds behind them."""
    for subject, mine in rows[rows["layer"] > 0].groupby("subject", sort=False):
        table = mine.pivot_table("value", "layer", "seed")
        if table.empty:
            continue
        style = KNOWN.get(str(subject), {**SUBJECT, "label": subject})
        if dotted:
            axes.plot(table.index, table.mean(axis=1), color=style["color"], linestyle=":")
            continue
        axes.plot(table.index, table.to_numpy(), color=style["color"], linewidth=0.5, alpha=0.35)
        axes.plot(table.index, table.mean(axis=1), **style)


def _predictions(axes: Axes, degrees: pd.DataFrame) -> None:
    """As many Newton steps as the degree of GD++ asks for, and the published slope."""
    steps = select(degrees, learner="gd-plus-plus", metric="newton_steps")
    steps = steps[steps["value"] >= 0]
    axes.plot(steps["layer"], steps["value"], color="0.5", linestyle="--", label="GD++ by polynomial degree")
    layer = np.arange(1, steps["layer"].max() + 1)
    slope = {**PUBLISHED, "marker": "", "linestyle": "-."}
    axes.plot(layer, PUBLISHED_SLOPE * (layer - 1), **slope, label="softmax transformer, as published (slope)")
