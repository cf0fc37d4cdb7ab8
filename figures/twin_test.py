"""Twins: KL between networks, memory of old rewards, what streams read of each other, and where swaps take logits."""

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
    "one of each": "#EE3377",
    "thompson": "#000000",
    "untrained": "#BBBBBB",
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Function, influence, streams and swaps."""
    figure = Figure(figsize=(11, 8))
    (function, influence), (streams, swaps) = figure.subplots(2, 2)
    _function(function, tables["function"])
    _influence(influence, tables["influence"])
    _streams(streams, tables["streams"])
    _swaps(swaps, tables["swaps"])
    return figure


def _function(axes: Axes, table: pd.DataFrame) -> None:
    """A point per pair, with its interval."""
    rows = select(table, metric="kl")
    kinds = list(rows["target"].unique())
    for shift, (group, own) in enumerate(rows.groupby("subject", sort=False)):
        for place, kind in enumerate(kinds):
            pairs = select(own, target=kind)
            x = place + 0.25 * (shift - 1) + np.linspace(-0.08, 0.08, len(pairs))
            ends = np.abs(pairs[["low", "high"]].to_numpy().T - pairs["value"].to_numpy())
            label = _pair(str(group)) if place == 0 else None
            axes.errorbar(x, pairs["value"], ends, fmt="o", ms=3, lw=0.8, color=COLOURS[str(group)], label=label)
    axes.set(yscale="log", ylabel="KL between networks, nats per step", xlabel="contexts")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_title("One function? (a point per pair, 95 % over contexts)")
    axes.legend(fontsize=7)


def _pair(group: str) -> str:
    return group if group == "one of each" else f"two {group}"


def _influence(axes: Axes, table: pd.DataFrame) -> None:
    """As a share of what all ages have, so that temperatures drop out; shade: all seeds."""
    rows = select(table, metric="own", target="own lag")
    for name in rows["subject"].unique():
        wide = select(rows, subject=name).pivot_table("value", "lag", "seed")
        shares = wide / wide.sum()
        axes.plot(shares.index, shares.median(axis=1), color=COLOURS[name], label=name,
                  ls="--" if name == "thompson" else "-")  # fmt: skip
        axes.fill_between(shares.index, shares.min(axis=1), shares.max(axis=1), color=COLOURS[name], alpha=0.2, lw=0)
    axes.set(xlabel="later pulls of the same arm", ylabel="share of the influence", ylim=(0, None))
    axes.set_title(f"Which of {int(rows['pulls'].iloc[0])} coins of an arm move its odds, turned over")
    axes.legend(fontsize=7)


def _streams(axes: Axes, table: pd.DataFrame) -> None:
    """A point per reader, grouped by whose stream is read, and at which layer."""
    read, shuffled = (select(table, metric=metric) for metric in ("read", "shuffled"))
    groups = list(read[["target", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    for place, (target, layer) in enumerate(groups):
        rows = select(read, target=target, layer=layer)
        for shift, reader in enumerate(rows["learner"].unique()):
            own = select(rows, learner=reader)
            x = place + 0.2 * (shift - 1) + np.linspace(-0.06, 0.06, len(own))
            ends = np.abs(own[["low", "high"]].to_numpy().T - own["value"].to_numpy())
            label = f"by {reader}" if place == 0 else None
            axes.errorbar(x, own["value"], ends, fmt="o", ms=4, lw=0.8, color=COLOURS[str(reader)], label=label)
        chance = select(shuffled, target=target, layer=layer)["value"].median()
        axes.hlines(chance, place - 0.4, place + 0.4, color="0.5", lw=0.8, ls=":")
    axes.axhline(0, color="0.6", lw=0.8)
    axes.set_xticks(range(len(groups)), [f"{target}\nlayer {layer}" for target, layer in groups], fontsize=7)
    axes.set(ylabel="share explained", xlabel="whose stream is read", ylim=(-0.2, 1.05))
    axes.set_title("Beyond counts and sums, who reads whom? (dotted: of other tasks)")
    axes.legend(fontsize=7, loc="lower center", ncols=3)


def _swaps(axes: Axes, table: pd.DataFrame) -> None:
    """A point per seed; random subspaces as bars beside those of probes."""
    ways = select(table, metric="way")
    places = list(ways[["target", "layer"]].drop_duplicates().itertuples(index=False, name=None))
    for shift, name in enumerate(ways["subject"].unique()):
        own = select(ways, subject=name)
        random = select(table, subject=name, metric="random")
        for place, (target, layer) in enumerate(places):
            rows = select(own, target=target, layer=layer)
            x = place + 0.3 * (shift - 0.5) + np.linspace(-0.06, 0.06, len(rows))
            axes.plot(x, rows["value"], ls="none", marker="o", ms=3.5, color=COLOURS[str(name)],
                      label=name if place == 0 else None)  # fmt: skip
            placebo = select(random, target=target, layer=layer)["value"]
            if len(placebo):
                axes.hlines(placebo.median(), x.min() - 0.05, x.max() + 0.05, color="0.4", lw=1.5)
    axes.axhline(0, color="0.6", lw=0.8)
    axes.axhline(1, color="0.6", lw=0.8)
    axes.set_xticks(range(len(places)), [f"{target}, layer {layer}" for target, layer in places], rotation=45,
                    ha="right", fontsize=7)  # fmt: skip
    axes.set(ylabel="share of the way")
    axes.set_title("One arm's coins turned over: what swaps do (bars: random subspaces)")
    axes.legend(fontsize=7)
