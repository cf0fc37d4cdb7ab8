"""Pool or ridge: errors and rivals against the number of training tasks, per family of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.style import LABELS, LEARNERS, SUBJECT

RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "pool-bayes": ("posterior mean over the pool (dMMSE)", LEARNERS["pool-bayes"]),
    "smoothed-pool-bayes": ("... smoothed, fitted", {"color": "#CC79A7", "marker": "v", "linestyle": ":"}),
    "pool-ridge": ("best on the pool, linear in labels", {"color": "#0072B2", "marker": "s", "linestyle": "--"}),
    "ridge": (LABELS["ridge"], LEARNERS["ridge"]),
}
FAMILIES = {
    "sparse": "free: Q's block of features",
    "full": "free: the blocks of features of P and Q",
    "free": "free: every entry of P and Q",
}
TARGETS = {"pool": "training tasks", "new": "new tasks"}
FLOOR = 1e-4  # of the logarithmic axes: what is below is as good as none


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A row of five panels per family from the tables curves and thresholds; bands are 95 % intervals over seeds."""
    curves, thresholds = tables["curves"], tables["thresholds"]
    families = list(curves["subject"].unique())
    figure = Figure(figsize=(21, 4 * len(families)))
    grid = figure.subplots(len(families), 5, squeeze=False)
    for row, name in zip(grid, families, strict=True):
        mine = _positions(select(curves, subject=name))
        for panel, (target, title) in zip(row, TARGETS.items(), strict=False):
            shown = select(mine, target=target, metric="error")
            for learner in ("pool-bayes", "pool-ridge", "ridge"):
                _curve(panel, select(shown, learner=learner), *RIVALS[learner])
            gone = select(mine, target=target, metric="diverged")["value"].max()
            left_out = f", but for up to {gone:.0%} of tasks, where it diverges" if gone > 0 else ""
            _curve(panel, select(shown, learner="subject"), f"network{left_out}", SUBJECT)
            panel.set(title=f"Error, {title}", ylabel="E (f − y)² / E y²", yscale="log")
        for panel, (target, title) in zip(row[2:], TARGETS.items(), strict=False):
            shown = select(mine, target=target, metric="disagreement")
            for learner, look in RIVALS.items():
                _curve(panel, select(shown, learner=learner), *look)
            panel.set(title=f"Unexplained by rivals, {title}", ylabel="disagreement", yscale="log")
        _mark(row[3], select(thresholds, subject=name, metric="nearer-to-ridge"))
        shown = select(mine, target="pool", metric="label-scaling")
        for learner in ("pool-bayes", "smoothed-pool-bayes"):
            _curve(row[4], select(shown, learner=learner), *RIVALS[learner])
        _curve(row[4], select(shown, learner="subject"), "network", SUBJECT)
        row[4].set(title="Labels halved, predictions doubled", ylabel="disagreement with itself, training tasks")
        row[4].set_yscale("symlog", linthresh=FLOOR)
        row[0].annotate(FAMILIES[name], (0.02, 1.14), xycoords="axes fraction", fontweight="bold")
        for panel in row:
            _sizes(panel, mine)
            panel.legend(fontsize=7)
    figure.suptitle("Does linear attention learn its tasks by heart, or ridge regression?   (medians over seeds)")
    return figure


def _mark(axes: Axes, threshold: pd.DataFrame) -> None:
    """From where on the network is nearer to ridge than to the posterior mean."""
    if len(threshold) and np.isfinite(threshold["value"].iloc[0]):
        found = threshold.iloc[0]
        label = f"nearer to ridge from {found['value']:.0f} [{found['low']:.0f}, {found['high']:.0f}] tasks on"
        axes.axvline(np.log2(found["value"]), color="0.5", linestyle="--", label=label)


def _positions(rows: pd.DataFrame) -> pd.DataFrame:
    """Pools at their binary logarithm, unlimited two places after the largest."""
    logs = np.log2(rows["pool"].astype(float))
    return rows.assign(at=logs.fillna(logs.max() + 2)).sort_values("at")


def _curve(axes: Axes, rows: pd.DataFrame, label: str, look: dict[str, Any]) -> None:
    middle, low, high = (rows[name].clip(lower=FLOOR) for name in ("value", "low", "high"))
    axes.plot(rows["at"], middle, label=label, **look)
    axes.fill_between(rows["at"], low, high, color=look["color"], alpha=0.2, linewidth=0)


def _sizes(axes: Axes, rows: pd.DataFrame) -> None:
    found = rows.drop_duplicates("at")
    axes.set_xticks(found["at"], ["∞" if pd.isna(pool) else f"{pool}" for pool in found["pool"]])
    axes.set(xlabel="distinct training tasks")
