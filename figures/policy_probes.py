"""Policies probed: how well they act, what layers add to simpler quantities, how far swaps go, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analyses.tables import select

SUBJECTS = {
    "decision-pretrained": "#009988",
    "distilled from q-learning": "#0072B2",
    "distilled from certainty-equivalence": "#220066",
    "distilled from successor-representation": "#CC79A7",
    "q-learning on random walks": "#56B4E9",
    "certainty-equivalence on random walks": "#8877CC",
    "successor-representation on random walks": "#E69FC0",
    "reinforced": "#D55E00",
    "reinforced after pretraining": "#884400",
    "distilled": "#0072B2",
}
REFERENCES = {
    "myopic": ("#BBBBBB", ":"),
    "planner, 2 sweeps": ("#888888", ":"),
    "q-learning": ("#0072B2", ":"),
    "planner": ("#000000", ":"),
}
SHORT = {
    "distilled from q-learning": "from Q-learning",
    "distilled from certainty-equivalence": "from a planner",
    "distilled from successor-representation": "from SR",
    "q-learning on random walks": "Q-learning's laws\non random walks",
    "certainty-equivalence on random walks": "a planner's laws\non random walks",
    "successor-representation on random walks": "SR's laws\non random walks",
    "reinforced after pretraining": "reinforced after\npretraining",
}
WORDS = {
    "used": "used",
    "decodable, not used": "carried,\nnot used",
    "decodable, cannot tell": "carried,\ncannot tell",
    "not decodable": "–",
}
SHADES = {
    "used": "#66BB99",
    "decodable, not used": "#EEDD88",
    "decodable, cannot tell": "#F5E8C8",
    "not decodable": "#EEEEEE",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Optimal choices by step, increments and swaps by quantity, the answers; below, increments of bandit policies."""
    increments, swaps = tables["increments"], tables["interchange"]
    bandits = select(increments, task="bandit")
    rows = 3 if len(bandits) else 2
    figure = Figure(figsize=(14, 4.6 * rows))
    axes = figure.subplots(rows, 2)
    _ability(axes[0, 0], tables["ability"])
    ring = select(increments, task="ring", metric="beyond untrained")
    _heat(axes[0, 1], best_layer(ring), "R² that the best layer adds, beyond an untrained one")
    _swaps(axes[1, 0], swaps)
    _answers(axes[1, 1], tables["answers"])
    if len(bandits):
        _heat(axes[2, 0], best_layer(select(bandits, metric="beyond untrained")), "bandits: R² added by the best layer")
        _heat(axes[2, 1], best_layer(select(bandits, metric="shuffled")), "bandits: control, targets of other tasks")
    return figure


def best_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Quantities by policies: the best layer of the median seed."""
    per_seed = rows.groupby(["target", "subject", "seed"], sort=False)["value"].max()
    return per_seed.groupby(["target", "subject"], sort=False).median().unstack(sort=False)


def _ability(axes: Axes, ability: pd.DataFrame) -> None:
    curves = select(ability, metric="optimal")
    for name in curves["subject"].unique():
        wide = select(curves, subject=name).pivot_table("value", "step", "seed")
        wide = wide.rolling(5, center=True, min_periods=1).mean()
        if name in REFERENCES:
            colour, style = REFERENCES[name]
            axes.plot(wide.index, wide[0], color=colour, ls=style, lw=1.2, label=name)
            continue
        axes.plot(wide.index, wide.median(axis=1), color=SUBJECTS[name], lw=1.6, label=SHORT.get(name, name))
        axes.fill_between(wide.index, wide.min(axis=1), wide.max(axis=1), color=SUBJECTS[name], alpha=0.2, lw=0)
    axes.set(
        xlabel="step of a random walk", ylabel="optimal choices", title="Who has learnt the ring? (dotted: learners)"
    )
    axes.set_ylim(0.22)  # room for the legend
    axes.legend(fontsize=7, loc="lower right", ncols=3)


def _heat(axes: Axes, values: pd.DataFrame, title: str) -> None:
    image = axes.imshow(values.to_numpy(), vmin=0, vmax=0.6, cmap="BuGn", aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        said, colour = f"{value:.2f}".replace("-0.00", "0.00"), "white" if value > 0.4 else "black"
        axes.text(j, i, said, ha="center", va="center", fontsize=7, color=colour)
    _names(axes, list(values.columns))
    axes.set_yticks(range(len(values)), list(values.index), fontsize=7)
    axes.set_title(title)
    axes.figure.colorbar(image, ax=axes, fraction=0.04, extend="both")


def _swaps(axes: Axes, swaps: pd.DataFrame) -> None:
    """A point per seed, at the layer where the swap surely goes farthest beyond random subspaces."""
    groups = list(select(swaps, metric="beyond random").groupby(["pair", "target"], sort=False).groups)
    subjects = list(swaps["subject"].unique())
    for i, (pair, target) in enumerate(groups):
        for j, subject in enumerate(subjects):
            own = select(swaps, subject=subject, pair=pair, target=target)
            difference = select(own, metric="beyond random")
            last = difference.loc[difference.groupby("seed")["low"].idxmax()]
            place = i + 0.8 / len(subjects) * (j - (len(subjects) - 1) / 2)
            ends = np.abs(last[["low", "high"]].to_numpy().T - last["value"].to_numpy())
            spread = place + 0.1 / len(subjects) * np.arange(len(last))
            label = SHORT.get(subject, subject) if i == 0 else None
            axes.errorbar(spread, last["value"], yerr=ends, fmt="o", ms=3, lw=0.8, color=SUBJECTS[subject], label=label)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set_xticks(range(len(groups)), [f"{target}\n({pair})" for pair, target in groups], fontsize=7, rotation=25)
    axes.set(ylabel="share of the way, beyond random", title="How far a swap at the query takes the logits")
    axes.legend(fontsize=6, loc="best")


def _answers(axes: Axes, answers: pd.DataFrame) -> None:
    """The verdict that most seeds have, and how many."""
    rows = select(answers, metric="used")
    subjects = list(rows["subject"].unique())
    columns = list(rows.groupby(["pair", "target"], sort=False).groups)
    for (i, subject), (j, (pair, target)) in product(enumerate(subjects), enumerate(columns)):
        own = select(rows, subject=subject, pair=pair, target=target)["verdict"].value_counts()
        word = str(own.index[0])
        axes.add_patch(_square(j, i, SHADES[word]))
        axes.text(j, i, f"{WORDS[word]}\n{own.iloc[0]} of {own.sum()}", ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(columns)), [f"{target}\n({pair})" for pair, target in columns], fontsize=7)
    able = select(answers, metric="able").groupby("subject")["value"].median()
    labels = [f"{SHORT.get(name, name)}\n(as a planner: {able[name]:.2f})" for name in subjects]
    axes.set_yticks(range(len(subjects)), labels, fontsize=7)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(subjects) - 0.5, -0.5), title="An answer per objective")


def _names(axes: Axes, subjects: Sequence[str]) -> None:
    names = [SHORT.get(name, name) for name in subjects]
    axes.set_xticks(range(len(subjects)), names, fontsize=7, rotation=35, ha="right", rotation_mode="anchor")


def _square(x: int, y: int, colour: str) -> Rectangle:
    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white")
