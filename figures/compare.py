"""One network, or two side by side: what every rival leaves of each, rivals of one kind in one colour."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.compare import KINDS, OTHER
from analyses.tables import select

COLOURS = dict(zip((*KINDS, OTHER), ("#0072B2", "#005522", "#9911FF", "#EE3377", "#E69F00", "#888888"), strict=True))
SMALLEST = 1e-6  # shown


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel per network; filled: named by its answer; left of the dashed line: fits; small: every seed."""
    panels = [(rows, select(tables["seeds"], place=place)) for place, rows in tables["rivals"].groupby("place")]
    figure = Figure(figsize=(1 + 5.5 * len(panels), 1.8 + 0.28 * max(len(rows) for rows, _ in panels)))
    for axes, (rows, seeds) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, rows, seeds)
    figure.suptitle(
        "What every rival leaves unexplained\n(95 % intervals of the median seed; filled: named)", fontsize=10
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, seeds: pd.DataFrame) -> None:
    for place, (_, row) in enumerate(rows.iterrows()):
        each = select(seeds, learner=row["learner"])["value"].clip(lower=SMALLEST)
        axes.plot(each, np.full(len(each), place + 0.25), ".", color=COLOURS[row["kind"]], alpha=0.5, ms=4, mew=0)
    shown = rows[["value", "low", "high"]].clip(lower=SMALLEST)
    for place, (_, row) in enumerate(rows.iterrows()):
        value, low, high = shown.iloc[place]
        if np.isfinite(value):
            colour = COLOURS[row["kind"]]
            axes.plot([low, high], [place, place], color=colour, lw=1)
            axes.plot(value, place, "o", color=colour, mfc=colour if row["named"] else "white", ms=5)
    axes.axvline(rows["fits_below"].iloc[0], color="0.4", ls="--", lw=0.8)
    axes.set_yticks(range(len(rows)), rows["learner"], fontsize=7)
    for label, kind in zip(axes.get_yticklabels(), rows["kind"], strict=True):
        label.set_color(COLOURS[kind])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="unexplained share", xlim=(SMALLEST / 2, 3))
    first = rows.iloc[0]
    said = textwrap.fill(f"{first['target']}: {first['said']}", 72)
    axes.set_title(f"{first['subject']}\n{said}", fontsize=8)
