"""What policies and rivals say to each test of the battery, and how long a reward goes on to count for each of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from analyses.tables import select
from figures.in_context_improvement import COLOURS
from probes.readings import BANDIT_READINGS, SURE, TIE, Reading

LARGEST = 5.0  # log odds at which colours end
SHOWN = {  # rivals whose memories differ in kind, by their colour
    "empirical-mean": "#DDCC77",
    "constant-step": "#EE3377",
    "forgetting": "#AA4499",
    "discounted-ucb": "#661100",
    "gradient-bandit": "#332288",
    "exp3": "#888888",
    "thompson": "#000000",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Signed answers by test, policies beside rivals; influence of a reward by its age, and on odds of other arms."""
    figure = Figure(figsize=(14, 6.5))
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1), squeeze=False)[0]
    answer_matrix(left.subplots(), tables["answers"], BANDIT_READINGS)
    top, bottom = right.subplots(2, 1)
    influence = tables["influence"]
    influence = select(influence, pulls=influence["pulls"].max())
    _fading(top, influence)
    _coupling(bottom, influence)
    return figure


def answer_matrix(axes: Axes, answers: pd.DataFrame, readings: Mapping[str, Reading]) -> None:
    """The median over seeds; digits in brackets where it is too small to be told from nothing and from a sign."""
    policies, rivals = (answers.loc[answers["group"] == group, "subject"].unique() for group in ("policy", "rival"))
    names, tests = [*policies, *rivals], list(readings)
    wide = answers.pivot_table("value", "target", "subject", aggfunc="median", dropna=False)
    values = wide.reindex(index=tests, columns=names).to_numpy(float)
    norm = SymLogNorm(SURE, vmin=-LARGEST, vmax=LARGEST)
    image = axes.imshow(np.clip(values, -LARGEST, LARGEST), cmap="RdBu_r", norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            unsure = TIE < abs(value) < SURE
            colour = "white" if abs(value) > 0.6 * LARGEST else "black"
            text = f"({value:+.1f})" if unsure else "0" if abs(value) <= TIE else f"{value:+.1f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    axes.axvline(len(policies) - 0.5, color="black", lw=1.5)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    labels = [f"{test}: {readings[test].positive}" for test in tests]
    axes.set_yticks(range(len(tests)), labels, fontsize=7)
    axes.set_title("Log odds said to each test, policies (left) beside rivals; blank: not asked", fontsize=9)
    axes.grid(visible=False)
    axes.figure.colorbar(image, ax=axes, ticks=[-LARGEST, -1, 0, 1, LARGEST], format="%g", shrink=0.6)


def _fading(axes: Axes, influence: pd.DataFrame) -> None:
    """On the own arm's odds, as a share of what all ages have, so that temperatures drop out."""
    rows = select(influence, metric="own", target="own lag")
    for name, style in _styles(rows).items():
        wide = select(rows, subject=name).pivot_table("value", "lag", "seed")
        shares = wide / wide.sum()
        axes.plot(shares.index, shares.median(axis=1), label=name, **style)
        if shares.shape[1] > 1:
            axes.fill_between(shares.index, shares.min(axis=1), shares.max(axis=1), color=style["color"], alpha=0.2)
    n = influence["pulls"].iloc[0]
    axes.axhline(1 / n, color="0.8", lw=0.8, zorder=0)
    axes.set(xlabel="later pulls of the same arm", ylabel="share of the influence")
    axes.set_title(f"Which of {n} rewards of an arm move its odds, turned over?", fontsize=9)
    axes.legend(fontsize=6, ncols=2)


def _coupling(axes: Axes, influence: pd.DataFrame) -> None:
    """Among other arms, root mean square, over the influence on the own arm; a dot per seed."""
    rows = select(influence, target="own lag")
    styles = _styles(rows)
    for place, (name, style) in enumerate(styles.items()):
        own, others = (
            select(rows, subject=name, metric=metric).groupby("seed")["value"].mean() for metric in ("own", "others")
        )
        share = (others / own.abs()).to_numpy()
        axes.plot(np.full(len(share), place), share, ls="none", marker="o", ms=4, color=style["color"])
    axes.set_xticks(range(len(styles)), list(styles), rotation=45, ha="right", fontsize=7)
    axes.set(ylabel="others / own")
    axes.set_title("How far a reward of one arm moves the odds of two others", fontsize=9)


def _styles(rows: pd.DataFrame) -> dict[str, dict]:
    """Policies in full, rivals dashed; those that there are."""
    policies = rows.loc[rows["group"] == "policy", "subject"].unique()
    rivals = [name for name in SHOWN if name in set(rows["subject"])]
    styles = {name: {"color": COLOURS[name], "lw": 2.0} for name in policies}
    return styles | {name: {"color": SHOWN[name], "lw": 1.0, "ls": "--"} for name in rivals}
