"""Policies on new bandits: reward by pull, totals beside learners', whose law they follow, and what data is worth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select

COLOURS = {
    "distilled": "#0072B2",
    "decision-pretrained": "#009988",
    "reinforced": "#D55E00",
    "random": "#BBBBBB",
    "thompson": "#000000",
    "posterior-mean": "#DDCC77",
    "empirical-mean": "#DDCC77",
    "ucb1": "#EE3377",
    "lcb": "#EE3377",
    "gittins": "#220066",
    "oracle": "#888888",
}
POLICIES = ("distilled", "decision-pretrained", "reinforced")


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Reward by pull, total reward by seed, KL to Thompson's law by context, suboptimality by size of the context."""
    figure = Figure(figsize=(10.5, 7.5))
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    _curves(top_left, select(tables["reward"], metric="reward"), "expected reward")
    top_left.set(xlabel="pull", title="Rewards rise within a trial, weights untouched")
    top_left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _totals(top_right, tables["reward"])
    _laws(bottom_left, tables["laws"])
    _curves(bottom_right, tables["offline"], r"$\mu^* - \mu_a$ of the likeliest action")
    bottom_right.set(xlabel="pulls in somebody else's context", yscale="log", title="What offline data are worth")
    bottom_right.legend(fontsize=7)
    return figure


def _curves(axes: Axes, rows: pd.DataFrame, label: str) -> None:
    for name in rows["subject"].unique():
        wide = select(rows, subject=name).pivot_table("value", "step", "seed")
        policy = name in POLICIES
        axes.plot(wide.index, wide.median(axis=1), color=COLOURS[name], lw=1.6 if policy else 1,
                  ls="-" if policy else "--", label=name)  # fmt: skip
        if policy and wide.shape[1] > 1:
            axes.fill_between(wide.index, wide.min(axis=1), wide.max(axis=1), color=COLOURS[name], alpha=0.2, lw=0)
    axes.set_ylabel(label)


def _totals(axes: Axes, reward: pd.DataFrame) -> None:
    rows = select(reward, metric="total")
    names = rows.groupby("subject")["value"].median().sort_values().index
    names = [name for name in names if name != "random"]
    for place, name in enumerate(names):
        own = select(rows, subject=name)
        spread = np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else np.zeros(1)
        ends = np.abs(own[["low", "high"]].to_numpy().T - own["value"].to_numpy())
        axes.errorbar(own["value"], place + spread, xerr=np.nan_to_num(ends), fmt="o", ms=4, color=COLOURS[name])
    published = select(reward, metric="published")
    for row, style in zip(published.itertuples(), (":", "-."), strict=False):
        axes.axvline(row.value, color="0.5", ls=style, lw=1, label=row.subject)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="expected reward of a trial", title="Totals, 95 % over tasks (a point per seed)")
    if len(published):
        axes.legend(fontsize=7, loc="lower right")


def _laws(axes: Axes, laws: pd.DataFrame) -> None:
    contexts = list(laws["target"].unique())
    for i, name in enumerate(POLICIES):
        for metric, marker in (("kl", "o"), ("seeds", "_")):
            rows = select(laws, subject=name, metric=metric)
            places = rows["target"].map(contexts.index) + 0.2 * (i - 1)
            label = f"{name}: from Thompson's law" if metric == "kl" else None
            axes.scatter(places, rows["value"], color=COLOURS[name], marker=marker, s=24, label=label)
    axes.set_xticks(range(len(contexts)), [f"{name} contexts" for name in contexts])
    axes.set_yscale("log")
    axes.set(ylabel="KL, nats", title="Whose law is it? (dashes: between seeds)")
    axes.legend(fontsize=7)
