"""Task diversity: skill, likeness to TD and memorisation against the number of training tasks, and what must vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import LABELS, LEARNERS, SUBJECT

POOL: dict[str, Any] = {"color": "#D55E00", "marker": "X"}
POOL_LABEL = "knows the training tasks by heart"
NEAREST = {"td-plus-plus": LEARNERS["td-plus-plus"], "td0": LEARNERS["td0"], "myopic": LEARNERS["myopic"]} | {
    "reward-average": LEARNERS["reward-average"],
    "pool": POOL,
    "none": LEARNERS["zero"],
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Six panels from the tables curves and thresholds; bands and bars are 95 % intervals over seeds."""
    curves, thresholds = tables["curves"], tables["thresholds"]
    figure, axes = plt.subplots(2, 3, figsize=(13.5, 8))
    baseline = curves["subject"].iloc[0]
    by_size = _positions(curves[(curves["subject"] == baseline) & (curves["fixed"] == "")])
    skill, left, likeness = axes[0]
    _curve(skill, by_size, "skill", "subject", "new", "network, new tasks", SUBJECT)
    _curve(
        skill, by_size, "skill", "subject", "pool", "network, its training tasks", {"color": "#888888", "marker": "s"}
    )
    _curve(skill, by_size, "skill", "pool", "pool", POOL_LABEL, POOL)
    threshold = thresholds.iloc[0]
    if np.isfinite(threshold["value"]):
        skill.axvline(
            np.log2(threshold["value"]), color="0.5", linestyle="--", label=f"threshold: {threshold['value']:.0f} tasks"
        )
    skill.set(title="Skill over predicting zero", ylabel="1 − MSVE / MSVE of zero", ylim=(-0.3, 0.9))
    for learner in ("td-plus-plus", "td0", "myopic"):
        _curve(left, by_size, "disagreement", learner, "new", LABELS[learner], LEARNERS[learner])
    left.set(title="What rivals leave unexplained, new tasks", ylabel="disagreement with the network", yscale="log")
    _curve(likeness, by_size, "iws", "subject", "new", "network with batch TD, new tasks", SUBJECT)
    _curve(likeness, by_size, "iws", "myopic", "new", "fitted myopic learner with batch TD", LEARNERS["myopic"])
    _curve(likeness, by_size, "iws", "pool", "pool", "network with the one that knows by heart", POOL)
    likeness.set(title="Implicit weight similarity", ylabel="IWS")
    shares, fixed, varied = axes[1]
    _shares(shares, by_size)
    for panel in (skill, left, likeness, shares):
        _sizes(panel, by_size)
        panel.legend()
    _fixed(fixed, curves[(curves["subject"] == baseline) & curves["pool"].isna()])
    _variations(varied, curves, thresholds)
    figure.suptitle(
        "How many training tasks does TD need, and which of their components must vary?   (medians over seeds)"
    )
    return figure


def _positions(rows: pd.DataFrame) -> pd.DataFrame:
    """Pools at their binary logarithm, unlimited two places after the largest."""
    logs = np.log2(rows["pool"].astype(float))
    last = logs.max() + 2 if logs.notna().any() else 0.0
    return rows.assign(at=logs.fillna(last)).sort_values("at")


def _curve(
    axes: Axes, rows: pd.DataFrame, metric: str, learner: str, target: str, label: str, look: dict[str, Any]
) -> None:
    mine = rows[(rows["metric"] == metric) & (rows["learner"] == learner) & (rows["target"] == target)]
    axes.plot(mine["at"], mine["value"], label=label, **look)
    axes.fill_between(mine["at"], mine["low"], mine["high"], color=look["color"], alpha=0.2, linewidth=0)


def _sizes(axes: Axes, rows: pd.DataFrame) -> None:
    found = rows.drop_duplicates("at")
    labels = ["∞" if pd.isna(pool) else f"{pool}" for pool in found["pool"]]
    axes.set_xticks(found["at"], labels)
    axes.set(xlabel="distinct training tasks")


def _shares(axes: Axes, rows: pd.DataFrame) -> None:
    """Stacked shares of seeds by nearest rival."""
    table = rows[rows["metric"] == "nearest"].pivot_table("value", "at", "learner").fillna(0.0)
    floor = np.zeros(len(table))
    for learner, look in NEAREST.items():
        if learner in table:
            label = {"pool": POOL_LABEL, "none": "no rival (> .5 unexplained)"}.get(learner, LABELS.get(learner))
            axes.bar(table.index, table[learner], bottom=floor, width=0.9, color=look["color"], label=label)
            floor += table[learner].to_numpy()
    axes.set(title="Nearest rival on new tasks", ylabel="share of seeds", ylim=(0, 1.35))


def _fixed(axes: Axes, rows: pd.DataFrame) -> None:
    """Unlimited tasks with a component fixed: skill on new tasks, and on tasks that share what training fixed."""
    names = list(rows["fixed"].unique())
    looks = {"new": ("new tasks", SUBJECT), "pool": ("tasks that share it", {"color": "#888888", "marker": "s"})}
    for offset, (target, (label, look)) in zip((-0.1, 0.1), looks.items(), strict=True):
        mine = rows[(rows["metric"] == "skill") & (rows["learner"] == "subject") & (rows["target"] == target)]
        error = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
        at = [names.index(name) + offset for name in mine["fixed"]]
        axes.errorbar(at, mine["value"], yerr=np.nan_to_num(error), linestyle="none", label=f"skill, {label}", **look)
    left = rows[(rows["metric"] == "disagreement") & (rows["learner"] == "td-plus-plus") & (rows["target"] == "new")]
    at = [names.index(name) + 0.25 for name in left["fixed"]]
    error = np.abs(left[["low", "high"]].to_numpy().T - left["value"].to_numpy())
    look = LEARNERS["td-plus-plus"]
    axes.errorbar(
        at, left["value"], yerr=np.nan_to_num(error), linestyle="none", label="unexplained by TD++, new tasks", **look
    )
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(len(names)), [name or "nothing" for name in names])
    axes.set(title="What training fixed", ylim=(-0.5, 1.4))
    axes.legend()


def _variations(axes: Axes, curves: pd.DataFrame, thresholds: pd.DataFrame) -> None:
    """Skill on new tasks over the unlimited one's, by variation."""
    for row, color in zip(
        thresholds.itertuples(), ("#000000", "#0072B2", "#D55E00", "#009988", "#CC79A7"), strict=False
    ):
        mine = _positions(curves[(curves["subject"] == row.subject) & (curves["fixed"] == "")])
        mine = mine[(mine["metric"] == "skill") & (mine["learner"] == "subject") & (mine["target"] == "new")]
        number = f"{row.value:.0f}" if np.isfinite(row.value) else "none"
        label = f"{row.subject}: {number} ({row.low:.0f} to {row.high:.0f})"
        axes.plot(mine["at"], mine["value"], color=color, marker="o", label=label)
        _sizes(axes, mine)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(title="Threshold: half of the unlimited skill", ylabel="skill on new tasks", ylim=(-0.3, None))
    axes.legend()
