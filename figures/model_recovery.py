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
    "zero",
)
ANSWERS = {**{name: LABELS[name] for name in ORDER}, "ambiguous": "ambiguous", "none": "none"}
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
    kinds, answers = list(dict.fromkeys(confusion["subject"])), [*ANSWERS]
    totals = networks.groupby("subject").size()
    for (kind, answer), cell in networks.groupby(["subject", "answer"]):
        # one wrong network shows in a cell of right ones
        worst = "wrong" if "wrong" in set(cell["judged"]) else cell["judged"].mode()[0]
        x, y, share = answers.index(answer), kinds.index(kind), len(cell) / totals[kind]
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=JUDGED[worst], alpha=0.2 + 0.8 * share, linewidth=0))
        axes.text(x, y, str(len(cell)), ha="center", va="center", color="white" if share > 0.4 else "black")
    axes.set_xticks(range(len(answers)), [ANSWERS[name] for name in answers], rotation=40, ha="right")
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
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    error = np.abs(confidence[["low", "high"]].to_numpy().T - confidence["value"].to_numpy())
    axes.errorbar(
        confidence["reported"], confidence["value"], yerr=error, linestyle="none", marker="o", color="black", capsize=2
    )
    for row in confidence.itertuples():
        axes.annotate(f"{row.n:.0f}", (row.reported, row.value), (6, -3), textcoords="offset points")
    axes.set(
        title="Is confidence kept? (counted on other kinds)",
        xlabel="reported confidence",
        ylabel="share that held",
        xlim=(-0.03, 1.08),
        ylim=(-0.03, 1.06),
    )
