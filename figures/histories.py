"""What was collected: how outcomes rise over a history, in which tasks and when, and where the source is by then."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from analyses.tables import select

SOURCE, CHANCE, BEST = "#0072B2", "#888888", "#000000"
FIRST, LAST = "#BBBBBB", "#0072B2"
COLOURS = "YlGnBu"
ROOMS = {"all": "all rooms", "median": "the median room"}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The learning curve, a raster of tasks by time, and where there is one: visits, when the first reward came, and
    pulls of the best arm."""
    curve = tables["curve"]
    rooms = "visits" in tables and "row" in tables["visits"]
    where = [["all first", "all last"], ["median first", "median last"]] if rooms else "visits"
    more = [panel for panel, there in (
        ("found", (curve["metric"] == "found").any()),
        ("best arm", (curve["metric"] == "best arm").any()),
        (where, "visits" in tables),
    ) if there]  # fmt: skip
    figure = Figure(figsize=(10.5, 7.5))
    layout = [["curve", "raster"], [more[0], more[1] if len(more) > 1 else "raster"]]
    axes = figure.subplot_mosaic(layout)
    _curve(axes["curve"], curve)
    _raster(figure, axes["raster"], tables)
    if "found" in axes:
        _found(axes["found"], curve)
    if "best arm" in axes:
        _best_arm(axes["best arm"], curve)
    if rooms:
        _rooms(figure, axes, tables["visits"])
    elif "visits" in axes:
        _states(axes["visits"], tables["visits"])
    for name in ("curve", "raster", "found", "best arm"):
        if name in axes:
            axes[name].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes["raster"].yaxis.set_major_locator(MaxNLocator(integer=True))
    n_tasks = tables["tasks"]["task"].nunique()
    figure.suptitle(f"{curve['learner'].iloc[0]} in {curve['analysis'].iloc[0]}: {n_tasks} learning histories")
    return figure


def _label(table: pd.DataFrame) -> str:
    """Of the axis of time."""
    k = int(table["keep_every"].iloc[0])
    return _time(table) if k == 1 else f"{_time(table)}, of one in {k} that were kept"


def _time(table: pd.DataFrame) -> str:
    return "episode" if "episode" in table else "step"


def _curve(axes: Axes, curve: pd.DataFrame) -> None:
    time = _time(curve)
    metric = "return" if time == "episode" else "reward"
    mean, median = (select(curve, metric=name) for name in (metric, "median"))
    marker = "" if time == "episode" else "o"
    axes.fill_between(mean[time], mean["low"], mean["high"], color=SOURCE, alpha=0.15, lw=0, label="80 % of tasks")
    axes.plot(median[time], median["value"], color=SOURCE, lw=1, ls=":", label="median")
    axes.plot(mean[time], mean["value"], color=SOURCE, lw=2, marker=marker, label="mean")
    for name, label, colour in (("optimal", "who knows the task", BEST), ("random", "at random", CHANCE)):
        axes.axhline(select(curve, metric=name)["value"].iloc[0], color=colour, ls="--", lw=1.2, label=label)
    top = max(mean["high"].max(), select(curve, metric="optimal")["value"].iloc[0])
    low = min(0.0, mean["low"].min())
    axes.set_ylim(low, low + 1.3 * (top - low))  # room for the legend
    axes.set(xlabel=_label(curve), ylabel="return of the episode" if time == "episode" else "reward per step")
    axes.set_title("What the source gets" + ("" if time == "episode" else ", by tenth of the history"))
    axes.legend(ncols=3, loc="upper left", fontsize=7)


def _raster(figure: Figure, axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    rows, n_tasks = tables["raster"], tables["tasks"]["task"].nunique()
    time = _time(rows)
    shown = rows["task"].nunique()
    values = rows["value"].to_numpy().reshape(shown, -1)
    ends = rows[time].to_numpy()[: values.shape[1]]
    image = axes.pcolormesh(
        np.concatenate([[0], ends]),
        np.arange(shown + 1),
        values,
        cmap=COLOURS,
        vmin=min(0.0, values.min()),
        rasterized=True,
    )
    axes.invert_yaxis()
    axes.grid(False)
    sparse = (tables["tasks"]["metric"] == "found").any()
    order = "by their first reward" if sparse else "by what they bring in all"
    part = f"{shown} of {n_tasks} tasks" if shown < n_tasks else "tasks"
    axes.set(xlabel=_label(rows), ylabel=f"{part}, {order}", title="Every row is a task")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    bar.set_label("return of an episode" if time == "episode" else "reward per step")
    bar.outline.set_visible(False)


def _found(axes: Axes, curve: pd.DataFrame) -> None:
    time = _time(curve)
    for metric, label, style in (
        ("found", "rewarded by then", "-"),
        ("solved", f"rewarded in that {_part(time)}", "--"),
    ):
        rows = select(curve, metric=metric)
        axes.plot(rows[time], rows["value"], color=SOURCE, ls=style, label=label)
    axes.set(xlabel=_label(curve), ylabel="share of tasks", ylim=(0, 1.02), title="When is the goal found?")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="lower right")


def _part(time: str) -> str:
    return "episode" if time == "episode" else "tenth"


def _best_arm(axes: Axes, curve: pd.DataFrame) -> None:
    rows = select(curve, metric="best arm")
    axes.plot(rows["step"], rows["value"], color=SOURCE, lw=2, marker="o")
    axes.set(xlabel="step", ylabel="share of pulls", ylim=(0, 1))
    axes.set_title("Pulls of the arm that pays best, by tenth")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _rooms(figure: Figure, axes: Mapping[str, Axes], visits: pd.DataFrame) -> None:
    """Each map in shares of its own largest cell: the first are broad, the last are narrow."""
    image = None
    for target, name in ROOMS.items():
        goals = select(visits, target="median", metric="rewards")
        for metric in ("first", "last"):
            panel = axes[f"{target} {metric}"]
            cells = select(visits, target=target, metric=metric).pivot_table("value", "row", "column").to_numpy()
            image = panel.imshow(cells / max(cells.max(), 1e-12), cmap=COLOURS, norm=PowerNorm(0.5, 0, 1))
            panel.set(xticks=[], yticks=[])
            panel.grid(False)
            panel.set_title(f"{name}, {metric} tenth", fontsize=8)
            if target == "median":
                goal = goals[goals["value"] > 0]
                panel.plot(goal["column"], goal["row"], "*", ms=11, mfc="#D55E00", mec="white", lw=0)
    if image is not None:
        panels = [axes[f"{target} {metric}"] for target in ROOMS for metric in ("first", "last")]
        bar = figure.colorbar(image, ax=panels, shrink=0.7, aspect=30, ticks=[0, 0.25, 1])
        bar.set_label("visits, 1 the most visited cell's (root scale)")
        bar.outline.set_visible(False)


def _states(axes: Axes, visits: pd.DataFrame) -> None:
    for metric, colour, shift in (("first", FIRST, -0.2), ("last", LAST, 0.2)):
        rows = select(visits, metric=metric)
        axes.bar(rows["place"] + shift, rows["value"], width=0.4, color=colour, label=f"{metric} tenth of the steps")
    axes.set_xticks(visits["place"].unique())
    axes.grid(False, axis="x")
    axes.set(xlabel="state, by its optimal value (1: largest)", ylabel="share of steps", title="Where steps lead")
    axes.legend()
