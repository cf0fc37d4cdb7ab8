"""Value and policy objectives side by side: how well each acts, what its weights hold, which rivals are near, what
edits do to all of them, and to those that have the same signs."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.tables import select
from figures.style import LABELS
from probes.behaviour import median_interval

VALUES = ("value-td", "q-sarsa", "q-regression")
KINDS = {"value": "C0", "policy": "C1", "planted": "C2", "control": "0.6"}
EDITS = {"accuracy": "as trained", "accuracy, 2 x loops": "2 x loops", "accuracy, lesion": "bootstrap block zeroed"}
DASHES = {"myopic": ":", "td0": "--", "td-plus-plus": "-.", "lstd": "-"}
IN_CLASSES = {
    "accuracy": ("as trained", "o"),
    "accuracy, rewards held": ("rewards held in the context", "x"),
    "accuracy, features held": ("features held in the context", "s"),
    "accuracy, rewards out of features": ("no rewards written into features", "+"),
    "without P reward,reward": ("without P reward,reward", "^"),
    "without P next_features,features": ("without P next,features", "v"),
}
FEWEST = 3  # seeds of a class that is drawn
ASKED = {"advantages": "", "values": ": v(s)"}
MOST = 1.0  # of the colour scale: a rival that leaves everything
DARK = 0.03  # cells below it are dark
ROUNDING = 1e-8  # what is below it is printed as nothing


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy of every seed beside the references, constants of the weights, what rivals leave, what edits do."""
    figure = Figure(figsize=(12, 15))
    panels = figure.subplot_mosaic("AC;RE;RS", width_ratios=(1.15, 1))
    names = list(tables["seeds"]["subject"].unique())
    _accuracy(panels["A"], tables, names)
    _constants(panels["C"], tables["seeds"], names)
    _rivals(panels["R"], tables)
    _edits(panels["E"], tables["seeds"], names)
    _classes(panels["S"], tables["classes"])
    return figure


def kind(name: str) -> str:
    """Whether a subject was trained for values, for choices, was planted, or is a control."""
    if name.startswith("planted"):
        return "planted"
    if "," in name or name == "untrained":
        return "control"
    return "value" if name in VALUES else "policy"


def _accuracy(axes: Axes, tables: Mapping[str, pd.DataFrame], names: list[str]) -> None:
    rows = select(tables["seeds"], metric="accuracy")
    for place, name in enumerate(names):
        values = select(rows, subject=name)["value"].to_numpy()
        spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
        colour = KINDS[kind(name)]
        axes.scatter(values, place + spread, s=10, color=colour, alpha=0.7)
        middle = median_interval(values)
        axes.plot([middle.value] * 2, [place - 0.35, place + 0.35], color=colour, lw=2)
        axes.plot([middle.low, middle.high], [place + 0.38] * 2, color=colour, lw=1)
    for row in tables["references"].itertuples():
        if row.learner in DASHES:
            label = LABELS.get(str(row.learner), str(row.learner))
            axes.axvline(row.value, color="0.3", lw=1, ls=DASHES[str(row.learner)], label=label)
    _named(axes, names)
    axes.set(xlabel="optimal actions, share of the states where it matters", xlim=(None, 1.01))
    axes.set_title("Who acts well? (seeds, median, its 95 % interval)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="learners", fontsize=7, title_fontsize=7)


def _constants(axes: Axes, seeds: pd.DataFrame, names: list[str]) -> None:
    wide = seeds.pivot_table("value", ["subject", "seed"], "metric")
    shown = [name for name in names if name in wide.index.get_level_values(0) and kind(name) != "control"]
    for name, marker in zip(shown, cycle("osD^vPX*<>ph8d"), strict=False):
        found = wide.loc[name]
        axes.scatter(found["alpha_eff"], found["bootstrap"], s=22, color=KINDS[kind(name)], marker=marker,
                         alpha=0.7, label=name, edgecolor="none")  # fmt: skip
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set(
        xlabel=r"$\alpha_\mathrm{eff}$: own value subtracted", ylabel=r"$\alpha\gamma_\mathrm{eff}$: next value added"
    )
    axes.set_title("Constants of the weights (TD: up, right)")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _rivals(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    rows = select(tables["rivals"], metric="disagreement")
    left = rows.pivot_table("value", ["target", "subject"], "learner", aggfunc="median", sort=False)
    axes.imshow(np.log10(left.clip(1e-4, MOST)), cmap="Blues_r", aspect="auto", vmin=-3, vmax=0)
    axes.set_xticks(
        range(left.shape[1]), [LABELS.get(str(name), str(name)) for name in left.columns], rotation=40, ha="right"
    )
    places = [(str(asked), str(name)) for asked, name in left.index]
    _named(axes, [name + ASKED[asked] for asked, name in places], [kind(name) for _, name in places])
    for (i, j), value in np.ndenumerate(left.to_numpy()):
        colour = "white" if value < DARK else "black"
        axes.text(j, i, f"{value if value > ROUNDING else 0:.1g}", ha="center", va="center", fontsize=6, color=colour)
    outcomes = tables["verdicts"].groupby(["target", "subject", "outcome"]).size().unstack(fill_value=0)
    for place, key in enumerate(places):
        said = "\n".join(f"{n} {outcome}" for outcome, n in outcomes.loc[key].items() if n)
        axes.text(left.shape[1] - 0.4, place, said, va="center", fontsize=6)
    axes.grid(False)
    axes.set_title("What each rival leaves of the advantages, below of state values v(s) (2 % fits)")


def _edits(axes: Axes, seeds: pd.DataFrame, names: list[str]) -> None:
    for place, name in enumerate(names):
        own, colour = select(seeds, subject=name), KINDS[kind(name)]
        for row, (metric, marker) in enumerate(zip(EDITS, "o>x", strict=True)):
            middle, height = median_interval(select(own, metric=metric)["value"].to_numpy()), place + 0.2 * (row - 1)
            axes.plot([middle.low, middle.high], [height] * 2, color=colour, lw=1)
            axes.scatter(middle.value, height, marker=marker, s=22, color=colour)
    _named(axes, names)
    handles = [
        Line2D([], [], ls="", marker=m, color="0.3", label=label)
        for m, label in zip("o>x", EDITS.values(), strict=True)
    ]
    axes.legend(handles=handles, fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set(xlabel="optimal actions, median over seeds with its 95 % interval")
    axes.set_title("What edits do to them")


def _classes(axes: Axes, classes: pd.DataFrame) -> None:
    sizes = select(classes, metric="seeds").itertuples()
    found = [(str(row.subject), str(row.target), int(row.value)) for row in sizes]
    rows = [row for row in found if row[2] >= FEWEST and kind(row[0]) != "control"]
    for place, (name, sign, _) in enumerate(rows):
        own = select(classes, subject=name, target=sign).set_index("metric")
        heights = place + np.linspace(-0.3, 0.3, len(IN_CLASSES))
        for (metric, (_, marker)), height in zip(IN_CLASSES.items(), heights, strict=True):
            value, low, high = own.loc[metric, ["value", "low", "high"]]
            axes.plot([low, high], [height] * 2, color=KINDS[kind(name)], lw=1)
            axes.scatter(value, height, marker=marker, s=16, color=KINDS[kind(name)])
    _named(axes, [f"{name}\n{count} with {sign}" for name, sign, count in rows], [kind(name) for name, _, _ in rows])
    handles = [Line2D([], [], ls="", marker=marker, color="0.3", label=label) for label, marker in IN_CLASSES.values()]
    axes.legend(handles=handles, fontsize=6, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set(xlabel="optimal actions, median over seeds with its 95 % interval")
    axes.set_title(r"Seeds that act, by the signs of $\alpha_\mathrm{eff}$ and $\gamma_\mathrm{eff}$")


def _named(axes: Axes, names: list[str], kinds: list[str] | None = None) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)  # no seed may act, and then there are no classes
    for label, of in zip(axes.get_yticklabels(), kinds or [kind(name) for name in names], strict=True):
        label.set_color(KINDS[of] if of != "control" else "0.4")
