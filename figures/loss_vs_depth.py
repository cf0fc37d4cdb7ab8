"""Loss against depth: trained networks, every rival's own optimum, and the published, weaker baselines."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from figures.preconditioned_gd import RIVALS
from figures.style import LEARNERS, SUBJECT

ACCELERATED = {
    "momentum": ("Σ⁻¹ and momentum", {"color": "#DDAA33", "marker": "v"}),
    "chebyshev": ("Σ⁻¹, Chebyshev", {"color": "#DDAA33", "marker": "o", "fillstyle": "none"}),
}
BASELINES = {
    "gd-published": ("gradient descent as published", LEARNERS["gd"]),
    "preconditioned-gd-published": ("Σ⁻¹ as published", LEARNERS["preconditioned-gd"]),
}
FAMILIES = {"sparse": {"linestyle": "--"}, "full": {"linestyle": "-"}, "free": {"linestyle": "-."}}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel by depth."""
    return draw_losses(tables["losses"], "depth", "layers, or steps")


def draw_losses(losses: pd.DataFrame, index: str, label: str) -> Figure:
    """Lines are medians over seeds, thin ones the seeds; bars 95 % over prompts; dotted: baselines as published."""
    figure, axes = plt.subplots(figsize=(7.5, 5))
    for name, (title, style) in {**RIVALS, **ACCELERATED, **BASELINES}.items():
        mine = losses[losses["learner"] == name].sort_values(index)
        error = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
        line = ":" if name in BASELINES else "-"
        axes.errorbar(
            mine[index], mine["value"], yerr=np.nan_to_num(error), label=title, **style, linestyle=line, linewidth=1
        )
    for family, mine in losses[losses["learner"] == "network"].groupby("subject", sort=False):
        table = mine.pivot_table("value", index, "seed")
        axes.plot(table.index, table.to_numpy(), color=SUBJECT["color"], linewidth=0.5, alpha=0.4)
        style = {**SUBJECT, **FAMILIES[family]}
        axes.plot(table.index, table.median(axis=1), label=f"network, {family} family", **style)
    axes.set(
        yscale="log",
        xticks=sorted(losses[index].unique()),
        xlabel=label,
        ylabel="E (f - y)²",
        title="Networks beside every rival's own optimum on the same prompts",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
