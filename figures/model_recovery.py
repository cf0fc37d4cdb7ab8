"""The planted benchmark: who is called what, how often that is wrong, and whether confidence keeps its word."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.style import LABELS

# In the order of the kinds, so that right answers lie on the diagonal.
ORDER = (
    "td0",
    "td-lambda",
    "residual-gradient",
    "average-reward-td",
    "preconditioned-td",
    "td-plus-plus",
    "myopic",
    "reward-average",
    "lstd",
    "monte-carlo",
    "gd",
    "preconditioned-gd",
    "gd-plus-plus",
    "averaging",
    "newton",
    "ridge",
    "ols",
    "conjugate-gradient",
    "nearest-neighbour",
    "kernel-smoother",
    "zero",
    "ambiguous",
    "none",
)
JUDGED = {"right": "#009988", "wrong": "#D55E00", "missed": "#777777", "ambiguous": "#777777"}
RATES = {
    "wrong": "wrong identifications",
    "wrong by the strict rules": "... or simpler than planted",
    "decoys given a name": "decoys given a name",
    "separable identified": "separable, identified",
    "missed": "answered none, wrongly",
    "ambiguous": "ambiguous",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Confusion matrix (counts; deeper: a larger share of the row), rates, and the calibration of confidence."""
    figure = plt.figure(figsize=(12, 6.6))
    grid = figure.add_gridspec(2, 2, width_ratios=[2.1, 1])
    _confusion(figure.add_subplot(grid[:, 0]), tables["confusion"], tables["networks"])
    _rates(figure.add_subplot(grid[0, 1]), tables["rates"])
    _confidence(figure.add_subplot(grid[1, 1]), tables["confidence"])
    networks = tables["networks"]
    figure.suptitle(
        f"What the verdict says of {len(networks)} networks whose algorithm is known "
        f"({networks['subject'].nunique()} kinds; thresholds from all other kinds)"
    )
    return figure


def _confusion(axes: Axes, confusion: pd.DataFrame, networks: pd.DataFrame) -> None:
    kinds, possible = list(dict.fromkeys(confusion["subject"])), set(confusion["learner"])
    answers = [name for name in ORDER if name in possible]
    totals = networks.groupby("subject").size()
    for (kind, answer), cell in networks.groupby(["subject", "answer"]):
        # one wrong network shows in a cell of right ones
        worst = "wrong" if "wrong" in set(cell["judged"]) else cell["judged"].mode()[0]
        x, y, share = answers.index(answer), kinds.index(kind), len(cell) / totals[kind]
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=JUDGED[worst], alpha=0.2 + 0.8 * share, linewidth=0))
        axes.text(x, y, str(len(cell)), ha="center", va="center", color="white" if share > 0.4 else "black")
    axes.set_xticks(range(len(answers)), [LABELS.get(name, name) for name in answers], rotation=40, ha="right")
    axes.set_yticks(range(len(kinds)), [f"{kind} ({totals[kind]})" for kind in kinds])
    axes.set(xlim=(-0.5, len(answers) - 0.5), ylim=(len(kinds) - 0.5, -0.5), xlabel="answer")
    axes.grid(visible=False)
    axes.set_title("Answers by kind of network: right in green, wrong in orange, undecided or missed in grey")


def _rates(axes: Axes, rates: pd.DataFrame) -> None:
    rates = rates.set_index("target").loc[[*RATES]].iloc[::-1]
    places = np.arange(len(rates))
    values = rates["value"].to_numpy()
    error = np.abs(rates[["low", "high"]].to_numpy().T - values)
    axes.errorbar(values, places, xerr=error, linestyle="none", marker="o", color="black", capsize=2)
    for place, (_, row) in zip(places, rates.iterrows(), strict=True):
        hits = round(row["value"] * row["n"])
        side = "left" if row["value"] < 0.5 else "right"
        axes.annotate(f"{hits} of {row['n']:.0f}", (row["value"], place), (0, 5), textcoords="offset points", ha=side)
    axes.set_yticks(places, [RATES[name] for name in rates.index])
    axes.set(title="Rates with exact 95 % intervals", xlim=(-0.03, 1.03), ylim=(-0.5, len(rates) - 0.3))


def _confidence(axes: Axes, confidence: pd.DataFrame) -> None:
    """By class of reported confidence: the share that held, and a bar where the mean of the reported stands."""
    places, values = np.arange(len(confidence)), confidence["value"].to_numpy()
    error = np.abs(confidence[["low", "high"]].to_numpy().T - values)
    axes.plot(confidence["reported"], places, "|", color="#D55E00", markersize=14, markeredgewidth=2, label="reported")
    axes.errorbar(values, places, xerr=error, fmt="o", color="black", capsize=2, label="held, exact 95 % interval")
    classes = [f"{row.reported:.1%} reported\n{row.n:.0f} networks" for row in confidence.itertuples()]
    axes.set_yticks(places, classes)
    lowest = confidence[["low", "reported"]].min().min()
    axes.set(
        title="Is confidence kept? (counted on other kinds)",
        xlabel="share of answers that held",
        xlim=(lowest - 0.05, 1.02),
        ylim=(-0.6, len(places) + 0.2),
    )
    axes.legend(loc="upper left", ncols=2)
