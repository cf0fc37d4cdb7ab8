"""The evidence card: one page that says what was tested on a network, level by level, and which rivals are left."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import LABELS, LEARNERS

COLUMNS = 4
SMALLEST = 1e-8  # what a logarithmic axis shows of a share of zero
SLOPES = (-0.3, 2.3)  # shown; one beyond is far from what was predicted
LOGARITHMIC = ("unexplained share", "squared distance")


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel per finding: every rival's statistic with its interval, and a line where a rival that is right has it.

    Named rivals are in colour, excluded ones hollow; dashed is what a rival may leave unexplained and still fit.
    Several seeds are dots, with their median on top.
    """
    findings, answers = tables["findings"], tables["answers"]
    tests = list(findings.groupby(["level", "target"], sort=False))
    rows = -(-len(tests) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(2.6 * COLUMNS + 1, 1.2 + 2.3 * rows), sharey=True, squeeze=False
    )
    for axes in grid.flat[len(tests) :]:
        axes.axis("off")
    named = {name for names in answers["learner"] for name in names.split(", ")}
    rivals = [name for name in LEARNERS if name in set(findings["learner"])][::-1]
    for axes, ((level, test), rows_of_test) in zip(grid.flat, tests, strict=False):
        _panel(axes, rows_of_test, rivals, named)
        axes.set_title("\n".join(textwrap.wrap(f"{level}: {test}", 34)))
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(rivals)), [LABELS[name] for name in rivals])
        for label, name in zip(axes.get_yticklabels(), rivals, strict=True):
            label.set_fontweight("bold" if name in named else "normal")
    figure.suptitle(_heading(answers), ha="left", x=0.01)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, rivals: list[str], named: set[str]) -> None:
    logarithmic = rows["metric"].iloc[0] in LOGARITHMIC
    for place, name in enumerate(rivals):
        mine = rows[rows["learner"] == name]
        if mine.empty:
            continue
        values, low, high = (mine[column].to_numpy(dtype=float) for column in ("value", "low", "high"))
        if logarithmic:
            values, low, high = (np.maximum(x, SMALLEST) for x in (values, low, high))
        colour = LEARNERS[name]["color"] if name in named else "0.55"
        style = {"color": colour, "marker": LEARNERS[name]["marker"], "linestyle": "none"}
        style["markerfacecolor"] = "white" if mine["excluded"].all() else colour
        if len(mine) > 1:
            axes.plot(values, np.full(len(values), place), markersize=3, alpha=0.3, **style)
            axes.plot([np.median(values)], [place], **style)
        else:
            error = np.nan_to_num(np.abs(np.stack([low, high]) - values))
            axes.errorbar(values, [place], xerr=error, capsize=2, elinewidth=0.9, **style)
    expected = float(rows["expected"].iloc[0])
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(max(SMALLEST, min(1e-3, 0.3 * rows["low"].min())) / 2, 3)
    else:
        axes.axvline(expected, color="0.4", linewidth=0.9)
        axes.set_xlim(*SLOPES)
    threshold = rows["threshold"].iloc[0]
    if np.isfinite(threshold):
        axes.axvline(threshold, color="0.4", linewidth=0.9, linestyle="--")
    axes.set(xlabel=rows["metric"].iloc[0], ylim=(-0.6, len(rivals) - 0.4))


def _heading(answers: pd.DataFrame) -> str:
    """Who is asked, and what is answered: of every seed where there is one, else how many seeds say what."""
    lines = [answers["subject"].iloc[0]]
    for (outcome, learners), group in answers.groupby(["outcome", "learner"], sort=False):
        names = ", ".join(LABELS[name] for name in learners.split(", ") if name)
        said = f"{outcome}: {names}" if names else outcome
        lines.append(said if len(answers) == 1 else f"{len(group)} of {len(answers)} seeds: {said}")
    if len(answers) == 1:
        row = answers.iloc[0]
        if pd.notna(row["value"]):
            interval = f"{row['low']:.0%} to {row['high']:.0%}"
            lines.append(f"confidence {row['value']:.0%} ({interval}, {row['n']:.0f} planted networks)")
        lines += textwrap.wrap(row["note"], 125)
    lines.append("In colour: rivals that are named. Hollow: the test speaks against. Dashed: what may be left.")
    return "\n".join(lines)
