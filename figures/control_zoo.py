"""The zoo of decision problems: whom every policy is called, how far its laws are from whom, and on which contexts."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.algorithm_zoo import answers, confusion, divergences
from probes.verdict import FITS

GROUPS = ("exact laws", "counted", "others", "own walks", "controls")
# by kind of context: colour, marker
KINDS = {
    "uniform": ("#56B4E9", "o"),
    "skewed": ("#E69F00", "s"),
    "moved": ("#D55E00", "v"),
    "exploiting": ("#8877CC", "D"),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Confusion matrix, KL of the policies' laws, and by kind of context what a policy's own source leaves of them."""
    networks, laws = tables["networks"], tables["laws"]
    names = [name for group in GROUPS for name in select(networks, target=group)["subject"].unique()]
    figure = plt.figure(figsize=(16, 2.6 + 0.27 * len(names)))
    first, second, third = figure.subplots(1, 3, sharey=True, width_ratios=[1.5, 1, 1])
    confusion(first, networks, names, answers(laws, names))
    divergences(second, laws, names)
    _kinds(third, tables["unexplained"], names)
    below = {"ncols": 7, "fontsize": 7}
    figure.legend(*second.get_legend_handles_labels(), loc="outside lower left", **below)
    figure.legend(*third.get_legend_handles_labels(), loc="outside lower right", **below)
    for axes in (first, second, third):
        axes.set(ylim=(len(names) - 0.5, -0.5))
        for group in GROUPS[1:]:
            members = [names.index(name) for name in select(networks, target=group)["subject"].unique()]
            if members:
                axes.axhline(min(members) - 0.5, color="black", lw=1)
    said = []
    for group, rows in tables["rates"].groupby("target", sort=False):
        found = ", ".join(f"{row.value:.0%} {row.metric}" for row in rows.itertuples() if row.value)
        said.append(f"{group}: {found}")
    figure.suptitle("Policies distilled on rings from known learners. " + "; ".join(said), fontsize=9)
    return figure


def _kinds(axes: Axes, unexplained: pd.DataFrame, names: list[str]) -> None:
    rows = select(unexplained, learner="its source", metric="median")
    for kind, (colour, marker) in KINDS.items():
        each = select(rows, target=kind)
        axes.scatter(each["value"], each["subject"].map(names.index), color=colour, marker=marker, s=12, label=kind)
    for metric, marker in (("median", "|"), ("mean", "x")):
        each = select(unexplained, learner="its source", metric=metric, target="all")
        places = each["subject"].map(names.index)
        axes.scatter(each["value"], places, color="black", marker=marker, s=30, label=f"{metric} over all contexts")
    axes.axvline(FITS, color="black", ls=":", lw=1, label="what fits (median)")
    axes.set(xscale="log", xlabel="share of the best constant law's KL")
    axes.set_title("What its source leaves unexplained")
