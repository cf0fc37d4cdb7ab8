"""Rooms whose goal is not seen: the return of every episode, and what the length of the context is worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analyses.tables import select

COLOURS = {
    "distilled": "#0072B2",
    "one-map-distilled": "#EE3377",
    "expert-distilled": "#E69F00",
    "decision-transformer": "#D55E00",
    "decision-transformer, all": "#332288",
    "decision-pretrained": "#009988",
    "random": "#BBBBBB",
    "q-learning": "#660033",
    "q-learning, subsampled": "#000000",
    "goal-inference": "#DDCC77",
    "optimal": "#888888",
}
LEARNERS = ("random", "q-learning", "q-learning, subsampled", "goal-inference", "optimal")
SHORT = "distilled, "  # and the context in episodes


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Return by episode of policies and learners, improvement of everyone, and of distillation by its context."""
    figure = Figure(figsize=(10.5, 7.5))
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    best = select(tables["returns"], subject="optimal")["value"].max()
    names = [name for name in tables["returns"]["subject"].unique() if not name.startswith(SHORT)]
    _curves(top_left, tables["returns"], [name for name in names if name not in LEARNERS] + ["q-learning, subsampled"])
    for axes in (top_left, top_right):
        axes.set_ylim(0, 1.35 * best)  # room for the legend
    top_left.set_title("Policies, weights untouched (shade: 95 % over goals)")
    _curves(top_right, tables["returns"], [name for name in names if name in LEARNERS])
    top_right.set_title("Learners in the same rooms")
    _improvements(bottom_left, tables["improvement"], names)
    _contexts(bottom_right, tables)
    return figure


def _curves(axes: Axes, returns: pd.DataFrame, names: list[str]) -> None:
    """The median seed, and its interval."""
    for name in names:
        rows = select(returns, subject=name).groupby("episode")[["value", "low", "high"]].median()
        learner = name in LEARNERS
        axes.plot(rows.index, rows["value"], color=COLOURS[name], lw=1.2 if learner else 1.8,
                  ls="--" if learner else "-", label=name)  # fmt: skip
        if name == "distilled" or name == "q-learning, subsampled":
            axes.fill_between(rows.index, rows["low"], rows["high"], color=COLOURS[name], alpha=0.12, lw=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="episode", ylabel="return on new goals")
    axes.legend(fontsize=7, ncols=2, loc="upper left")


def _improvements(axes: Axes, improvement: pd.DataFrame, names: list[str]) -> None:
    names = [name for name in names if name != "optimal"]
    for place, name in enumerate(names):
        _seeds(axes, select(improvement, subject=name, metric="improvement"), place, name, upright=False)
    axes.axvline(0, color="0.6", lw=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xlabel="return of the last quarter less that of the first episode")
    axes.set_title("Who improves? (a point per seed, 95 % over goals)")


def _contexts(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    rows = select(tables["improvement"], metric="improvement")
    rows = rows[rows["subject"].str.startswith("distilled")]
    contexts = sorted(rows["context"].unique())
    for place, context in enumerate(contexts):
        _seeds(axes, select(rows, context=context), place, "distilled", upright=True)
    kept = select(tables["improvement"], subject="q-learning, subsampled", metric="improvement")
    axes.axhline(
        kept["value"].iloc[0],
        color=COLOURS["q-learning, subsampled"],
        ls="--",
        lw=1.2,
        label="what its source improves",
    )
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set_xticks(range(len(contexts)), [f"{context:g}" for context in contexts])
    axes.set(xlabel="context, episodes", ylabel="improvement", title="Distillation by the length of its context")
    axes.legend(fontsize=7, loc="center left")


def _seeds(axes: Axes, rows: pd.DataFrame, place: int, name: str, *, upright: bool) -> None:
    """A point and an interval per seed."""
    value = rows["value"].to_numpy()
    spread = place + (np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else np.zeros(1))
    ends = np.nan_to_num(np.abs(rows[["low", "high"]].to_numpy().T - value))
    x, y = (spread, value) if upright else (value, spread)
    sides = {"yerr": ends} if upright else {"xerr": ends}
    axes.errorbar(x, y, **sides, fmt="o", ms=4, color=COLOURS[name])
