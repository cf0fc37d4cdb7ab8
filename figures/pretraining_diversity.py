"""Training tasks against learning in context: who knows only the old tasks, and whose law is followed on new ones."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select

COLOURS = {"distilled": "#0072B2", "decision-pretrained": "#009988"}
TARGETS = {"new": "-", "training": ":"}
RIVALS = {"thompson": "-", "by-heart": ":"}
LABELS = {"thompson": "Thompson's law", "by-heart": "the pool by heart"}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Skill on training and on new tasks, and KL on new ones, by the number of training tasks."""
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    skill, laws = tables["skill"], select(tables["laws"], target="new")
    pools = sorted(skill["pool"].dropna().unique().tolist())
    for name, colour in COLOURS.items():
        for target, style in TARGETS.items():
            rows = select(skill, subject=name, target=target)
            _curve(left, rows, pools, colour=colour, style=style, label=f"{name}, {target} tasks")
        for rival, style in RIVALS.items():
            rows = select(laws, subject=name, learner=rival)
            _curve(right, rows, pools, colour=colour, style=style, label=f"{name}: from {LABELS[rival]}")
    thompson = select(skill, subject="thompson")["value"].iloc[0]
    left.axhline(thompson, color="0.4", ls="--", lw=1, label="Thompson sampling, new tasks")
    left.set(ylabel="share of the attainable gain over random", title="Skill (median and range of seeds)")
    right.set(ylabel="KL, nats, on new tasks", yscale="log", title="Whose law on new tasks?")
    for axes in (left, right):
        axes.set_xticks(range(len(pools) + 1), [*(f"{pool}" for pool in pools), "∞"])
        axes.set_xlabel("distinct training tasks")
        axes.legend(fontsize=7)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, pools: list[int], *, colour: str, style: str, label: str) -> None:
    """Median, least and largest over seeds; unlimited tasks stand behind the largest pool."""
    places = rows["pool"].map({pool: place for place, pool in enumerate(pools)}).astype(float).fillna(len(pools))
    seeds = rows["value"].groupby(np.asarray(places)).agg(["median", "min", "max"])
    axes.plot(seeds.index, seeds["median"], color=colour, ls=style, marker="o", ms=3.5, label=label)
    axes.fill_between(seeds.index, seeds["min"], seeds["max"], color=colour, alpha=0.12, lw=0)
