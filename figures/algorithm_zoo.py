"""The algorithm zoo: which learner every distilled policy is called, and how far from all of them its laws are."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analyses.tables import select

JUDGED = {
    "assigned": "#009988",
    "rejected": "#009988",
    "ambiguous": "#777777",
    "missed": "#777777",
    "wrong": "#D55E00",
}
GROUPS = ("counted", "others", "controls")
# by metric: colour, marker, what it is
KLS = {
    "source": ("#0072B2", "o", "its source"),
    "seeds": ("#009988", "_", "another seed (ceiling)"),
    "nearest": ("#EE3377", "^", "the nearest other rival, fitted"),
    "floor": ("#888888", "|", "the best constant law (floor)"),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Confusion matrix (counts; deeper: a larger share of the row) and, row by row, KL of the policies' laws."""
    networks, laws = tables["networks"], tables["laws"]
    names = [name for group in GROUPS for name in select(networks, target=group)["subject"].unique()]
    figure = plt.figure(figsize=(12, 2.2 + 0.27 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.6, 1])
    confusion(left, networks, names, answers(laws, names))
    divergences(right, laws, names)
    figure.legend(loc="outside lower right", ncols=len(KLS), fontsize=7)
    for axes in (left, right):
        axes.set(ylim=(len(names) - 0.5, -0.5))
        for group in GROUPS[1:]:
            first = [names.index(name) for name in select(networks, target=group)["subject"].unique()]
            if first:
                axes.axhline(min(first) - 0.5, color="black", lw=1)
    counted = select(tables["rates"], target="counted").set_index("metric")
    said = ", ".join(f"{row.value:.0%} {name}" for name, row in counted.iterrows())
    figure.suptitle(f"Policies distilled from known learners. Above the first line (the sources that count): {said}")
    return figure


def answers(laws: pd.DataFrame, names: list[str]) -> list[str]:
    """Rivals in the order of their sources, so that right answers lie on a diagonal, and what else a verdict can be."""
    rivals, own = select(laws, metric="rival"), select(laws, own=True)
    first = own.drop_duplicates("subject").set_index("subject")["learner"].reindex(names).dropna()
    return [*dict.fromkeys([*first, *rivals["learner"]]), "ambiguous", "none"]


def confusion(axes: Axes, networks: pd.DataFrame, names: list[str], answers: list[str]) -> None:
    """Whom the policies of a row are called."""
    totals = networks.groupby("subject").size()
    for (name, answer), cell in networks.groupby(["subject", "answer"]):
        # one wrong policy shows in a cell of right ones
        worst = "wrong" if "wrong" in set(cell["judged"]) else cell["judged"].mode()[0]
        x, y, share = answers.index(answer), names.index(name), len(cell) / totals[name]
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=JUDGED[worst], alpha=0.2 + 0.8 * share, linewidth=0))
        axes.text(x, y, str(len(cell)), ha="center", va="center", color="white" if share > 0.4 else "black")
    axes.set_xticks(range(len(answers)), answers, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), [f"{name} ({totals[name]})" for name in names])
    axes.set(xlim=(-0.5, len(answers) - 0.5), xlabel="answer")
    axes.set_title("Right in green, wrong in orange, undecided or missed in grey")
    axes.grid(visible=False)


def divergences(axes: Axes, laws: pd.DataFrame, names: list[str]) -> None:
    """KL of every policy's laws, row by row; see KLS."""
    for metric, (colour, marker, label) in KLS.items():
        rows = _nearest(laws) if metric == "nearest" else select(laws, metric=metric)
        places = rows["subject"].map(names.index).to_numpy(dtype=float)
        spread = 0.08 * (rows["seed"].to_numpy(dtype=float) - np.nanmean(rows["seed"].to_numpy(dtype=float)))
        axes.scatter(rows["value"], places + spread, color=colour, marker=marker, s=14, label=label)
    axes.set(xscale="log", xlabel="KL, nats per step")
    axes.set_title("How far a policy's law is from ...")


def _nearest(laws: pd.DataFrame) -> pd.DataFrame:
    """Per policy, the least KL among rivals that are not what it was distilled from."""
    rivals = select(laws, metric="rival", own=False)
    return rivals.groupby(["subject", "seed"], as_index=False)["value"].min()
