"""Task diversity: skill, likeness to TD and memorisation against the number of training tasks, and what must vary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.style import LABELS, LEARNERS, SUBJECT
from figures.verdicts import draw_verdicts

POOL: dict[str, Any] = {"color": "#D55E00", "marker": "X"}
POOL_LABEL = "knows the training tasks by heart"
OWN_TASKS: dict[str, Any] = {"color": "#888888", "marker": "s"}
NEAREST = {"td-plus-plus": LEARNERS["td-plus-plus"], "td0": LEARNERS["td0"], "myopic": LEARNERS["myopic"]} | {
    "reward-average": LEARNERS["reward-average"],
    "pool": POOL,
    "none": LEARNERS["zero"],
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Eight panels from the tables curves, answers and thresholds; bands and bars are 95 % intervals over seeds."""
    curves, answers, thresholds = _positions(tables["curves"]), tables["answers"], tables["thresholds"]
    figure = Figure(figsize=(17, 8))
    (skill, left, likeness, varied), (shares, verdicts, of_fixed, fixed) = figure.subplots(2, 4)
    baseline = tables["curves"]["subject"].iloc[0]
    by_size = select(curves, subject=baseline, fixed="")
    _curve(skill, by_size, "skill", "subject", "new", "network, new tasks", SUBJECT)
    _curve(skill, by_size, "skill", "subject", "pool", "network, its training tasks", OWN_TASKS)
    _curve(skill, by_size, "skill", "pool", "pool", POOL_LABEL, POOL)
    _mark(skill, select(thresholds, subject=baseline, learner="subject"))
    skill.set(title="Skill over predicting zero", ylabel="1 − MSVE / MSVE of zero", ylim=(-0.3, 0.9))
    # the widest line first: where learners are one function, all of them show
    for learner, width in (("myopic", 5.0), ("td0", 2.5), ("td-plus-plus", 1.2)):
        look = {**LEARNERS[learner], "linewidth": width, "markersize": 3 + width}
        _curve(left, by_size, "disagreement", learner, "new", LABELS[learner], look)
    _mark(left, select(thresholds, subject=baseline, learner="td-plus-plus"))
    left.set(title="What rivals leave unexplained, new tasks", ylabel="disagreement with the network", yscale="log")
    _curve(likeness, by_size, "iws", "subject", "new", "network with batch TD, new tasks", SUBJECT)
    _curve(likeness, by_size, "iws", "myopic", "new", "fitted myopic learner with batch TD", LEARNERS["myopic"])
    _curve(likeness, by_size, "iws", "pool", "pool", "network with the one that knows by heart", POOL)
    likeness.set(title="Implicit weight similarity", ylabel="IWS")
    _shares(shares, by_size)
    for panel in (skill, left, likeness, shares):
        _sizes(panel, by_size)
        panel.legend()
    _variations(varied, curves, select(thresholds, learner="subject"))
    _verdicts(verdicts, of_fixed, answers[answers["subject"] == baseline])
    _fixed(fixed, curves[(curves["subject"] == baseline) & curves["pool"].isna()])
    figure.suptitle(
        "How many training tasks does TD need, and which of their components must vary?   (medians over seeds)"
    )
    return figure


def _mark(axes: Axes, threshold: pd.DataFrame) -> None:
    """Where half of what unlimited tasks bring is reached."""
    value = threshold["value"].iloc[0]
    if np.isfinite(value):
        axes.axvline(np.log2(value), color="0.5", linestyle="--", label=f"half of the unlimited: {value:.0f} tasks")


def _verdicts(by_size: Axes, by_component: Axes, answers: pd.DataFrame) -> None:
    grown = answers[answers["fixed"] == ""]
    sizes = [*sorted(grown["pool"].dropna().unique()), None]
    groups = [grown[grown["pool"].isna() if size is None else grown["pool"] == size] for size in sizes]
    draw_verdicts(by_size, ["∞" if size is None else f"{size}" for size in sizes], groups)
    by_size.set_xlabel("distinct training tasks")
    unlimited = answers[answers["pool"].isna()]
    components = list(unlimited["fixed"].unique())
    draw_verdicts(
        by_component, [name or "nothing" for name in components], [select(unlimited, fixed=c) for c in components]
    )
    by_component.set_xlabel("what training fixed, unlimited tasks")


def _positions(rows: pd.DataFrame) -> pd.DataFrame:
    """Pools at their binary logarithm, unlimited two places after the largest."""
    logs = np.log2(rows["pool"].astype(float))
    last = logs.max() + 2 if logs.notna().any() else 0.0
    return rows.assign(at=logs.fillna(last)).sort_values("at", kind="stable")


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
    looks = {"new": ("new tasks", SUBJECT), "pool": ("tasks that share it", OWN_TASKS)}
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
    axes.set(title="What training fixed", ylim=(-1.1, 1.6))
    axes.legend()


def _variations(axes: Axes, curves: pd.DataFrame, thresholds: pd.DataFrame) -> None:
    """Skill on new tasks over the unlimited one's, by variation."""
    for row, color in zip(
        thresholds.itertuples(), ("#000000", "#0072B2", "#D55E00", "#009988", "#CC79A7"), strict=False
    ):
        mine = select(curves, subject=row.subject, fixed="", metric="skill", learner="subject", target="new")
        number, low, high = (f"{n:.0f}" if np.isfinite(n) else "∞" for n in (row.value, row.low, row.high))
        axes.plot(
            mine["at"], mine["value"], color=color, marker="o", label=f"{row.subject}: {number} ({low} to {high})"
        )
    _sizes(axes, select(curves, fixed=""))
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(title="Threshold: half of the unlimited skill", ylabel="skill on new tasks", ylim=(-0.3, None))
    axes.legend()
