"""Test by pair of rivals: which test can tell them apart; and how constructions move against TD(0)'s prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from analyses.tables import select
from figures.style import LABELS, LEARNERS

SHORT = {
    **LABELS,
    "residual-gradient": "resid. grad.",
    "preconditioned-td": "precond. TD",
    "average-reward-td": "avg-reward TD",
    "reward-average": "reward avg",
    "myopic": "myopic",
}
LOWEST = 1e-3  # of the colour scale: below it, all is one
SCALE, COLOURS = LogNorm(LOWEST, 1.0), "YlGnBu"
DARK = 0.09  # cells above it are too dark for black letters
RANDOM = "random"  # networks that no learner explains
LOOKS = {**LEARNERS, RANDOM: {"color": "0.6", "marker": "x"}}
PREDICTOR = "td0"
SHOWN = ("td0", "td-lambda", "residual-gradient", "average-reward-td", "myopic", "lstd", "monte-carlo")


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A heat map per depth, pairs by tests; slopes and shares by test and construction; responses by distance."""
    separation, profiles = select(tables["separation"], metric="separation"), tables["profiles"]
    threshold = float(select(tables["separation"], metric="threshold")["value"].iloc[0])
    depths = sorted(separation["depth"].unique())
    widths = [1.3 + 3.7 * len(depths), 5.6]
    figure = Figure(figsize=(sum(widths), 11))
    left, right = figure.subfigures(1, 2, width_ratios=widths, squeeze=False)[0]
    left.suptitle("Which test tells which pair of learners apart?", x=0.01, ha="left")
    maps = left.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(maps, depths, strict=True):
        _heat_map(axes, select(separation, depth=depth), threshold)
        axes.set_xlabel(f"{depth} steps")
    scale = ScalarMappable(SCALE, COLOURS)
    bar = left.colorbar(scale, ax=list(maps), location="bottom", shrink=0.6, aspect=50, pad=0.01)
    bar.ax.axvline(threshold, color="black", linewidth=1.5)
    bar.set_label(
        "share of one learner's change that the other, fitted to its predictions, leaves unexplained\n"
        f"(the smaller direction; bold above {threshold:g}; ∞: change against none; –: one of the two predicts nothing)"
    )
    slope, missed, chains, age = right.subplots(4, 1, height_ratios=[1.5, 1.5, 0.8, 0.8])
    shown = tables["slopes"]["test"].isin(separation["test"])
    rows = select(tables["slopes"][shown], learner=PREDICTOR)
    # a random network's slopes are anywhere
    _by_test(slope, select(rows[rows["subject"] != RANDOM], metric="slope"))
    slope.axvline(1, color="black", linewidth=0.8, linestyle=":")
    slope.set(xlim=(-0.6, 2.2), title="Slope: change seen on change predicted by fitted TD(0)")
    _by_test(missed, select(rows, metric="unexplained"))
    missed.axvline(threshold, color="black", linewidth=0.8)
    missed.set(
        xscale="log",
        xlim=(LOWEST, 30),
        title="Share that TD(0) leaves unexplained (its own: off the axis)",
    )
    missed.legend(loc="upper center", bbox_to_anchor=(0.4, -0.1), ncols=3)
    _profile(chains, select(profiles, metric="stitching"))
    chains.set(title="Response to a reward k transitions away, transitions shuffled", xlabel="k", ylabel="response")
    chains.set_xticks(chains.lines[0].get_xdata())
    _profile(age, select(profiles, metric="by_age"))
    age.set(title="Response to a reward by its age in the context", xlabel="transitions since", ylabel="response")
    age.legend(loc="upper center", bbox_to_anchor=(0.4, -0.3), ncols=3)
    return figure


def _heat_map(axes: Axes, rows: pd.DataFrame, threshold: float) -> None:
    tests = list(rows["test"].unique())
    pairs = rows[["learner", "target"]].drop_duplicates().itertuples(index=False)
    names = [f"{SHORT[a]} | {SHORT[b]}" for a, b in pairs]
    values = rows["value"].to_numpy().reshape(len(tests), -1).T
    shown = np.clip(np.where(np.isfinite(values), values, 1.0), LOWEST, 1.0)
    axes.imshow(np.ma.masked_where(np.isnan(values), shown), norm=SCALE, cmap=COLOURS, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        axes.text(
            column,
            row,
            _number(value),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if value > DARK else "black",
            fontweight="bold" if value > threshold else "normal",
        )
    axes.set_xticks(range(len(tests)), tests, rotation=50, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    if value < LOWEST:
        return "0"
    return "∞" if np.isinf(value) else f"{value:.2g}".lstrip("0") if value < 10 else f"{value:.0f}"


def _by_test(axes: Axes, rows: pd.DataFrame) -> None:
    """One line of dots per test, one dot per network with its interval over tasks; kinds side by side."""
    tests, kinds = list(rows["test"].unique()), [kind for kind in LOOKS if kind in set(rows["subject"])]
    for lane, kind in zip(np.linspace(-0.36, 0.36, len(kinds)), kinds, strict=True):
        mine = select(rows, subject=kind)
        place = np.array([tests.index(test) for test in mine["test"]]) + lane
        # an infinite share has no interval to draw, and lies beyond the axis
        error = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
        axes.errorbar(
            mine["value"],
            place,
            xerr=np.where(np.isfinite(error), error, 0.0),
            linestyle="none",
            markersize=3,
            elinewidth=0.6,
            label=LABELS.get(kind, "random network"),
            **LOOKS[kind],
        )
    axes.set_yticks(range(len(tests)), tests)
    axes.set_ylim(len(tests) - 0.5, -0.5)


def _profile(axes: Axes, rows: pd.DataFrame) -> None:
    for learner in SHOWN:
        mine = select(rows, learner=learner)
        axes.plot(mine["distance"], mine["value"], label=LABELS[learner], markersize=3, **LEARNERS[learner])
