"""The discount puzzle: the discount by every estimator and variation, what the lesion does, and how it grew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures.style import LEARNERS, SUBJECT

# Condition, source and learner of every estimate of the discount.
ESTIMATES: dict[tuple[str, str, str], tuple[str, dict[str, Any]]] = {
    ("intact", "weights", "td0"): ("in the weights", SUBJECT),
    ("intact", "predictions", "td-plus-plus"): ("TD++ fitted to predictions", LEARNERS["td-plus-plus"]),
    ("intact", "predictions", "td0"): ("TD(0) fitted to predictions", LEARNERS["td0"]),
    ("lesion", "predictions", "td0"): ("TD(0) fitted after the lesion", {**LEARNERS["td0"], "fillstyle": "none"}),
    ("intact", "objective", "td-plus-plus"): ("TD++ that the objective asks for", {"color": "#D55E00", "marker": "P"}),
    ("intact", "objective", "td0"): ("TD(0) that the objective asks for", {"color": "#D55E00", "marker": "o"}),
}
CONDITIONS = {"intact": "intact", "lesion": "rewriting\nrows zero", "noise": "noise of\nequal norm"}
EXPLAINERS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("predictions", "td-plus-plus"): ("TD++, fitted", LEARNERS["td-plus-plus"]),
    ("predictions", "td0"): ("TD(0), fitted", LEARNERS["td0"]),
    ("weights", "td0"): ("TD(0) of the weights, nothing fitted", SUBJECT),
}


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Five panels from the tables discounts, conditions, seeds and training."""
    figure = plt.figure(figsize=(13, 9.5))
    rows: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _estimates(rows[0].subplots(), tables["discounts"], tables["seeds"])
    explained, skill, constants, training = rows[1].subplots(1, 4)
    baseline = tables["conditions"]["subject"].iloc[0]
    seeds = _bootstrapping(tables["seeds"], baseline)
    conditions = tables["conditions"][tables["conditions"]["subject"] == baseline]
    _explained(explained, conditions[conditions["seed"].isin(seeds)])
    _skill(skill, conditions[conditions["seed"].isin(seeds)])
    _two_constants(constants, tables["constants"], baseline, seeds)
    grown = tables["training"][tables["training"]["subject"] == baseline]
    _training(training, grown[grown["seed"].isin(seeds)])
    figure.suptitle("Which discount does the trained network use?   Seeds that bootstrap; 95 % intervals")
    return figure


def _bootstrapping(seeds: pd.DataFrame, subject: str) -> list[int]:
    rows = seeds[(seeds["subject"] == subject) & (seeds["metric"] == "bootstraps") & (seeds["value"] == 1)]
    return rows["seed"].tolist()


def _estimates(axes: Axes, discounts: pd.DataFrame, seeds: pd.DataFrame) -> None:
    """One column per variation: the six estimates with their intervals, and a bar at the discount of the tasks."""
    flags = seeds[seeds["metric"] == "bootstraps"].groupby("subject", sort=False)
    subjects = list(flags.groups)
    counts, gammas = flags["value"].agg(["sum", "size"]), flags["gamma"].first()
    places = {name: i for i, name in enumerate(subjects)}
    rows = discounts[discounts["metric"] == "gamma"]
    for offset, (key, (label, look)) in zip(np.linspace(-0.3, 0.3, len(ESTIMATES)), ESTIMATES.items(), strict=True):
        mine = rows[(rows["condition"] == key[0]) & (rows["source"] == key[1]) & (rows["learner"] == key[2])]
        error = np.abs(mine[["low", "high"]].to_numpy().T - mine["value"].to_numpy())
        at = [places[name] + offset for name in mine["subject"]]
        axes.errorbar(at, mine["value"], yerr=np.nan_to_num(error), linestyle="none", label=label, **look)
    for name, place in places.items():
        axes.hlines(gammas[name], place - 0.42, place + 0.42, color="0.4", linestyle="--", linewidth=1.2)
    axes.hlines([], 0, 0, color="0.4", linestyle="--", label="γ of the tasks")
    shares = [f"{counts.loc[name, 'sum']:.0f} of {counts.loc[name, 'size']}" for name in subjects]
    labels = ["\n".join([*name.split("="), share]) for name, share in zip(subjects, shares, strict=True)]
    axes.set_xticks(range(len(subjects)), labels)
    axes.set(title="Discount by estimator; below, the seeds that bootstrap", ylabel="γ", ylim=(0, 3.0))
    axes.legend(ncols=4, loc="upper center")


def _explained(axes: Axes, rows: pd.DataFrame) -> None:
    """Disagreement by condition, one thin line per seed."""
    left = rows[rows["metric"] == "disagreement"]
    for (source, learner), (label, look) in EXPLAINERS.items():
        mine = left[(left["source"] == source) & (left["learner"] == learner)]
        _by_condition(axes, mine, label, look)
    axes.set(title="What each learner leaves unexplained", ylabel="disagreement")
    if (left["value"] > 0).any():  # no seed bootstraps in a training of seconds
        axes.set_yscale("log")
    axes.legend()


def _skill(axes: Axes, rows: pd.DataFrame) -> None:
    skill = rows[rows["metric"] == "skill"]
    _by_condition(axes, skill[skill["learner"] == "subject"], "network", SUBJECT)
    predicted = skill[(skill["learner"] == "td0") & (skill["source"] == "weights")]
    _by_condition(axes, predicted, "TD(0) of the weights", LEARNERS["td0"])
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(title="Skill: what the rewriting buys", ylabel="1 − MSVE / MSVE of zero", ylim=(-1.2, 0.4))
    axes.legend()


def _by_condition(axes: Axes, rows: pd.DataFrame, label: str, look: dict[str, Any]) -> None:
    table = rows.pivot_table("value", "condition", "seed").reindex(list(CONDITIONS))
    at = np.arange(len(CONDITIONS))
    axes.plot(at, table.to_numpy(), color=look["color"], linewidth=0.5, alpha=0.4)
    axes.plot(at, table.median(axis=1), label=label, **look)
    axes.set_xticks(at, list(CONDITIONS.values()))


def _two_constants(axes: Axes, constants: pd.DataFrame, subject: str, seeds: list[int]) -> None:
    """Step size and discount of every seed, in its weights and fitted: one algorithm should be one point."""
    mine = constants[(constants["subject"] == subject) & (constants["seed"].isin(seeds) | constants["seed"].isna())]
    for (condition, source, learner), (label, look) in ESTIMATES.items():
        rows = mine[(mine["condition"] == condition) & (mine["source"] == source) & (mine["learner"] == learner)]
        table = rows.pivot_table("value", "seed", "metric")
        if source != "objective" and {"alpha", "gamma"} <= set(table.columns):
            axes.plot(table["alpha"], table["gamma"], linestyle="none", alpha=0.8, label=label, **look)
    axes.set(title="Step size and discount by seed", xlabel="α", ylabel="γ")


def _training(axes: Axes, rows: pd.DataFrame) -> None:
    for (condition, source, learner), (label, look) in ESTIMATES.items():
        mine = rows[(rows["source"] == source) & (rows["learner"] == learner)]
        if condition == "intact" and len(mine):
            table = mine.pivot_table("value", "task_count", "seed")
            axes.plot(table.index, table.to_numpy(), color=look["color"], linewidth=0.5, alpha=0.4)
            axes.plot(table.index, table.median(axis=1), label=label, **look)
    axes.set(title="Over training (γ)", xlabel="training tasks", ylabel="γ", ylim=(0, 1.5))
