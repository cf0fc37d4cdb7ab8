"""What L trained layers hold: whitened matrices, Dist over training, constants and losses beside every rival's own."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from figures.style import LABELS, LEARNERS, PUBLISHED, SUBJECT

BLOCKS = {"A": "Σ^½ A Σ^½", "B": "Σ^-½ B Σ^½", "A-unwhitened": "A, not whitened"}
COLORS = {"A": "#0072B2", "B": "#009988", "A-unwhitened": "#D55E00"}
RIVALS = {
    "gd-constant": ("GD, one step size", {**LEARNERS["gd"], "fillstyle": "none"}),
    "gd": (LABELS["gd"], LEARNERS["gd"]),
    "preconditioned-gd-constant": ("Σ⁻¹, one step size", {**LEARNERS["preconditioned-gd"], "fillstyle": "none"}),
    "preconditioned-gd": ("Σ⁻¹, free step sizes", LEARNERS["preconditioned-gd"]),
    "gd-plus-plus": (LABELS["gd-plus-plus"], LEARNERS["gd-plus-plus"]),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """A row per family: the matrices of the first seed, Dist and loss over training, constants, losses."""
    families = list(tables["losses"]["subject"].unique())
    figure = plt.figure(figsize=(16.5, 3.6 * len(families)))
    rows = figure.subfigures(len(families), 1, squeeze=False)[:, 0]
    for row, family in zip(rows, families, strict=True):
        mine = {name: table[table["subject"] == family] for name, table in tables.items()}
        left, right = row.subfigures(1, 2, width_ratios=(1, 3.5))
        _matrices(left, mine["weights"])
        axes = right.subplots(1, 4)
        _dist(axes[0], mine["dist"], mine["published"])
        _training(axes[1], mine["dist"], mine["losses"])
        _constants(axes[2], mine["constants"], mine["published"])
        _losses(axes[3], mine["losses"], mine["published"])
        row.suptitle(f"{family} family", x=0.01, ha="left")
    return figure


def _matrices(figure: SubFigure, weights: pd.DataFrame) -> None:
    """The whitened matrices of the first seed, each with its own scale."""
    first = weights[weights["seed"] == weights["seed"].min()]
    blocks, layers = list(first["target"].unique()), sorted(first["layer"].unique())
    axes = figure.subplots(len(blocks), len(layers), squeeze=False)
    for i, block in enumerate(blocks):
        for j, layer in enumerate(layers):
            mine = first[(first["target"] == block) & (first["layer"] == layer)]
            ax = axes[i, j]
            ax.set_axis_off()
            if len(mine):
                matrix = mine.pivot_table("value", "row", "column").to_numpy()
                largest = np.abs(matrix).max()
                ax.imshow(matrix, cmap="RdBu_r", vmin=-largest, vmax=largest)
                ax.set_title(f"{block}$_{layer}$, to {largest:.2g}", fontsize=8)


def _dist(axes: Axes, dist: pd.DataFrame, published: pd.DataFrame) -> None:
    """Mean over layers for every seed, thick their median; the published end by layer."""
    rows = dist[(dist["metric"] == "dist") & (dist["step"] > 0)]
    for block, mine in rows.groupby("target"):
        table = mine.pivot_table("value", "step", "seed")
        axes.plot(table.index, table.to_numpy(), color=COLORS[block], linewidth=0.5, alpha=0.4)
        axes.plot(table.index, table.median(axis=1), color=COLORS[block], label=BLOCKS[block])
    for block, theirs in published[published["metric"] == "dist"].groupby("target"):
        style = {**PUBLISHED, "color": COLORS[block]}
        axes.plot([rows["step"].max()] * len(theirs), theirs["value"], label=f"{block} published", **style)
    axes.set(yscale="log", title="Dist to a multiple of I (layers' mean)", xlabel="step of training", ylabel="Dist")
    axes.legend(loc="best")


def _training(axes: Axes, dist: pd.DataFrame, losses: pd.DataFrame) -> None:
    """The loss on the prompts that were trained on, thick its median, above the best rivals' on new ones."""
    rows = dist[(dist["metric"] == "training-loss") & (dist["step"] > 0)]
    table = rows.pivot_table("value", "step", "seed")
    axes.plot(table.index, table.to_numpy(), color=SUBJECT["color"], linewidth=0.5, alpha=0.4)
    axes.plot(table.index, table.median(axis=1), color=SUBJECT["color"], label="network")
    for name in ("preconditioned-gd", "gd-plus-plus"):
        value = losses[(losses["learner"] == name) & (losses["metric"] == "loss")]["value"].iloc[0]
        axes.axhline(value, color=RIVALS[name][1]["color"], linestyle="--", label=f"best {RIVALS[name][0]}")
    axes.set(yscale="log", title="Training loss", xlabel="step of training", ylabel="E (f - y)²")
    axes.legend(loc="best")


def _constants(axes: Axes, constants: pd.DataFrame, published: pd.DataFrame) -> None:
    """tr / d of every whitened matrix, a point a seed, beside the best scalars."""
    rows = constants[constants["metric"] == "constant"]
    for block, mine in rows.groupby("target"):
        own, best = mine[mine["learner"] == "network"], mine[mine["learner"] != "network"]
        label = LABELS[best["learner"].iloc[0]]
        axes.plot(best["layer"], best["value"], "_", color=COLORS[block], markersize=22, label=f"{block}: best {label}")
        style = {**SUBJECT, "color": COLORS[block]}
        axes.plot(own["layer"], own["value"], linestyle="none", alpha=0.5, label=f"{block}: network", **style)
    theirs = published[published["metric"] == "constant"]
    if len(theirs):
        axes.plot(theirs["layer"], theirs["value"], label="published", **PUBLISHED)
    axes.set(yscale="log", title="Constants a and b by layer", xlabel="layer", xticks=sorted(rows["layer"].unique()))
    axes.legend(loc="best")


def _losses(axes: Axes, losses: pd.DataFrame, published: pd.DataFrame) -> None:
    rows = losses[losses["metric"] == "loss"]
    names = [*RIVALS, "network"]
    for place, name in enumerate(names):
        mine = rows[rows["learner"] == name]
        style = RIVALS[name][1] if name in RIVALS else SUBJECT
        mine = mine if name == "network" else mine.iloc[:1]
        error = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
        axes.errorbar(mine["value"], [place] * len(mine), xerr=error, linestyle="none", alpha=0.8, **style)
    theirs = published[published["metric"] == "loss"]
    if len(theirs):
        axes.plot(theirs["value"], [len(names) - 1.3] * len(theirs), label="published", **PUBLISHED)
        axes.legend(loc="best")
    axes.set(
        xscale="log",
        yticks=range(len(names)),
        yticklabels=[RIVALS[name][0] if name in RIVALS else "network" for name in names],
        title="Loss, rivals at their own optimum",
        xlabel="E (f - y)², 95 %",
    )
