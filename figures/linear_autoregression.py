"""Attention that continues linear sequences: trained constants against theory, errors by prefix, weights, positions."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.style import LABELS, LEARNERS, PUBLISHED, SUBJECT

CONSTANTS = {
    "step": "step size / theory",
    "lag_over_step": "lagged / step",
    "c_p_last": "$C_{ii}P_{T,T}$",
    "p_query_over_p_last": "$P_{T,T-1}/P_{T,T}$",
    "partner_over_own": "$C_{ii'}/C_{ii}$",
}
SHADES = plt.get_cmap("viridis")
DIVERGING = "RdBu"


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Three rows: constants, errors by prefix, training; C and P of plain networks; rules, and positions alone."""
    figure, axes = plt.subplots(3, 4, figsize=(14, 11.5), height_ratios=(1.6, 1, 1))
    _constants(axes[0, 0], tables["constants"])
    for axis, name in zip(axes[0, 1:3], ("augmented commuting", "augmented haar"), strict=True):
        _errors(axis, select(tables["errors"], subject=name), name)
    _training(axes[0, 3], tables["training"])
    for pair, name in zip((axes[1, :2], axes[1, 2:]), ("plain unitary", "plain orthogonal"), strict=True):
        _matrices(pair, select(tables["matrices"], subject=name), _best_seed(tables["training"], name), name)
    _disagreements(axes[2, 0], tables["predictions"])
    _positions(axes[2, 1], tables["positional"])
    _ranks(axes[2, 2], tables["positional"])
    _moves(axes[2, 3], tables["positional"])
    figure.suptitle("Causal linear attention on linear sequences (arXiv 2402.05787)", x=0.01, ha="left")
    return figure


def _constants(axes: Axes, rows: pd.DataFrame) -> None:
    """One dot per seed, theory as a line, the authors' arrays as crosses."""
    groups = [group for group in rows.groupby(["subject", "metric"], sort=False) if group[0][1] in CONSTANTS]
    for place, ((_subject, metric), mine) in enumerate(groups):
        scale = mine["expected"].iloc[0] if metric == "step" else 1.0
        spread = np.linspace(-0.25, 0.25, len(mine)) if len(mine) > 1 else np.zeros(1)
        axes.plot(mine["value"] / scale, place + spread, linestyle="none", alpha=0.7, **SUBJECT)
        axes.plot([mine["expected"].iloc[0] / scale] * 2, [place - 0.4, place + 0.4], color="0.4", linewidth=1.0)
        axes.plot(mine["published"].iloc[:1] / scale, [place + 0.4], **PUBLISHED)
    names = [f"{subject}\n{CONSTANTS[metric]}" for (subject, metric), _rows in groups]
    axes.set(title="Constants: seeds, theory |, authors ×", yticks=range(len(names)), yticklabels=names)
    axes.invert_yaxis()


def _errors(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    for name, mine in rows.groupby("learner", sort=False):
        table = mine.pivot_table("value", "states", "seed")
        if name == "network":
            axes.plot(table.index, table.to_numpy(), color=SUBJECT["color"], linewidth=0.6)
        else:
            axes.plot(table.index, table.mean(axis=1), color=LEARNERS[name]["color"], label=LABELS[name])
    axes.plot([], [], color=SUBJECT["color"], linewidth=0.6, label="network, by seed")
    axes.set(title=title, xlabel="states seen", ylabel="squared error of the next", ylim=(0, 2.1))
    axes.legend(loc="upper right")


def _disagreements(axes: Axes, rows: pd.DataFrame) -> None:
    """Every network against every rule, a dot per seed; what is below the axis is exact."""
    subjects = list(dict.fromkeys(rows["subject"]))
    names = [subject.replace(", ", "\n") for subject in subjects]
    for name, mine in rows.groupby("learner", sort=False):
        places = mine["subject"].map(subjects.index)
        axes.plot(
            mine["value"].clip(lower=1e-9), places, linestyle="none", alpha=0.6, label=LABELS[name], **LEARNERS[name]
        )
    axes.set(title="Disagreement with the rules", xscale="log", yticks=range(len(subjects)), yticklabels=names)
    axes.invert_yaxis()
    axes.legend(loc="best")


def _best_seed(training: pd.DataFrame, subject: str) -> int:
    rows = select(training, subject=subject)
    last = rows[rows["step"] == rows["step"].max()]
    return int(last.loc[last["value"].idxmin(), "seed"])


def _matrices(axes: np.ndarray, rows: pd.DataFrame, seed: int, title: str) -> None:
    """C and P of the seed with the least loss, red and blue the two signs."""
    for axis, metric in zip(axes, ("C", "P"), strict=True):
        matrix = select(rows, metric=metric, seed=seed).pivot(index="row", columns="column", values="value").to_numpy()
        limit = np.abs(matrix).max()
        axis.imshow(matrix, cmap=DIVERGING, vmin=-limit, vmax=limit)
        axis.set(title=f"{title}: {metric}, seed {seed}", xticks=[], yticks=[])
    axes[1].set(xlabel="state t", ylabel="states seen, T")


def _positions(axes: Axes, rows: pd.DataFrame) -> None:
    scales = sorted(rows["phase_scale"].unique())
    for scale, colour in zip(scales, SHADES(np.linspace(0, 0.9, len(scales))), strict=True):
        mine = select(rows, metric="weight", phase_scale=scale)
        by_lag = mine.groupby("lag")["value"].mean()
        axes.plot(by_lag.index, by_lag, color=colour, label=f"phases / {scale:g}")
        known = mine.dropna(subset="published")
        axes.plot(known["lag"].iloc[:1], known["published"].iloc[:1], **PUBLISHED)
    axes.set(title="Positions alone: last row of P", xlabel="lag T − t (× as published)", ylabel="weight")
    axes.legend(loc="best")


def _ranks(axes: Axes, rows: pd.DataFrame) -> None:
    mine = select(rows, metric="rank")
    axes.plot(mine["phase_scale"], mine["value"], linestyle="none", fillstyle="none", **SUBJECT)
    axes.plot(mine["phase_scale"], mine["published"], **PUBLISHED)
    axes.set(title="Directions of P that data see", xlabel="phase scale", ylabel="rank of the Gram (× as published)")


def _moves(axes: Axes, rows: pd.DataFrame) -> None:
    looks = {"moved_any": ("any direction", LEARNERS["copy-last"]), "moved_null": ("null direction", LEARNERS["gd"])}
    for metric, (label, look) in looks.items():
        mine = select(rows, metric=metric)
        axes.plot(mine["phase_scale"], mine["value"], linestyle="none", alpha=0.7, label=label, **look)
    axes.set(
        title="P moved by its own length", xlabel="phase scale", ylabel="relative change of predictions", yscale="log"
    )
    axes.legend(loc="best")


def _training(axes: Axes, rows: pd.DataFrame) -> None:
    for (subject, mine), look in zip(rows.groupby("subject", sort=False), LEARNERS.values(), strict=False):
        table = mine.pivot_table("value", "step", "seed")
        axes.plot(table.index, table.clip(lower=1e-8), color=look["color"], linewidth=0.6)
        axes.plot([], [], color=look["color"], label=subject)
    axes.set(title="Training, by seed", xlabel="step", ylabel="loss", xscale="log", yscale="log")
    axes.legend(loc="lower left")
