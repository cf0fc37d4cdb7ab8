"""The evidence card: one page that says what was tested on a network, level by level, and which rivals are left."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import LABELS, LEARNERS

COLUMNS = 4
SMALLEST = 1e-8  # what a logarithmic axis shows of a share of zero
SLOPES = (-0.3, 2.3)  # shown
LOGARITHMIC = ("unexplained share", "squared distance")
MOST = 3.0  # of a share or a distance that is shown
KEY = (
    "In colour: rivals that are named, or all if none is. Hollow: the test speaks against. Dashed: what may be left. "
    "Arrow: off the axis."
)


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A panel per finding: every rival's statistic with its interval, and a line where a rival that is right has it.

    Named rivals are in colour, excluded ones hollow; dashed is what a rival may leave unexplained and still fit.
    Several seeds are dots, with their median on top. Beyond the axis: an arrow at its edge and the number. A test that
    cannot be made says why.
    """
    findings, answers = tables["findings"], tables["answers"]
    tests = list(findings.groupby(["level", "target"], sort=False))
    rows = -(-len(tests) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS + 1, 1.2 + 2.3 * rows))
    grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for axes in grid.flat[len(tests) :]:
        axes.axis("off")
    named = {name for names in answers["learner"] for name in names.split(", ") if name}
    rivals = [name for name in LEARNERS if name in set(findings["learner"])][::-1]
    for axes, ((level, test), rows_of_test) in zip(grid.flat, tests, strict=False):
        _panel(axes, rows_of_test, rivals, named or set(rivals))
        axes.set_title("\n".join(textwrap.wrap(f"{level}: {test}", 34)))
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(rivals)), [LABELS[name] for name in rivals])
        for label, name in zip(axes.get_yticklabels(), rivals, strict=True):
            label.set_fontweight("bold" if name in named else "normal")
    figure.suptitle(_heading(answers), ha="left", x=0.01)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, rivals: list[str], named: set[str]) -> None:
    logarithmic = rows["metric"].iloc[0] in LOGARITHMIC
    axes.set(xlabel=rows["metric"].iloc[0], ylim=(-0.6, len(rivals) - 0.4))
    known = rows.dropna(subset="value")
    if known.empty:
        _say_why(axes, rows["note"].iloc[0] or "no rival predicts a change")
        return
    limits = SLOPES
    if logarithmic:
        axes.set_xscale("log")
        known = known.assign(**known[["value", "low", "high"]].clip(lower=SMALLEST))
        limits = max(SMALLEST, min(1e-3, 0.3 * known["low"].min())) / 2, MOST
    else:
        axes.axvline(float(rows["expected"].iloc[0]), color="0.4", linewidth=0.9)
    axes.set_xlim(*limits)
    threshold = rows["threshold"].iloc[0]
    if np.isfinite(threshold):
        axes.axvline(threshold, color="0.4", linewidth=0.9, linestyle="--")
    for place, name in enumerate(rivals):
        mine = known[known["learner"] == name]
        if len(mine):
            colour = LEARNERS[name]["color"] if name in named else "0.55"
            face = "white" if mine["excluded"].all() else colour
            style = {"color": colour, "marker": LEARNERS[name]["marker"], "markerfacecolor": face, "linestyle": "none"}
            _rival(axes, place, mine, limits, style)


def _rival(axes: Axes, place: int, rows: pd.DataFrame, limits: tuple[float, float], style: dict[str, Any]) -> None:
    """The interval of one seed, or the dots of several; their median, or an arrow to where it lies."""
    middle = float(rows["value"].median())
    shown = rows[["value", "low", "high"]].clip(*limits)
    if len(rows) > 1:
        axes.plot(shown["value"], np.full(len(rows), place), markersize=3, alpha=0.3, **style)
    else:
        axes.plot(shown[["low", "high"]].iloc[0], [place, place], color=style["color"], linewidth=0.9)
    if limits[0] <= middle <= limits[1]:
        axes.plot([middle], [place], **style)
        return
    over = middle > limits[1]
    edge, arrow, inwards = (limits[1], ">", -6) if over else (limits[0], "<", 6)
    axes.plot([edge], [place], clip_on=False, **{**style, "marker": arrow})
    side = {"ha": "right" if over else "left", "va": "center", "fontsize": 6.5}
    axes.annotate(f"{middle:.2g}", (edge, place), (inwards, 0), textcoords="offset points", **side)


def _say_why(axes: Axes, why: str) -> None:
    text = "\n".join(["does not apply:", *textwrap.wrap(why, 30)])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.35")
    axes.set_xticks([])
    axes.grid(visible=False)


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
    lines.append(KEY)
    return "\n".join(lines)
