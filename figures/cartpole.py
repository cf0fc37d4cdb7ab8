"""CartPole: what the weights read as and how similar the values are to TD over training, and every fitted rival."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.rivals import draw_distances
from figures.style import SUBJECT

CURVES = {
    "p_bottom_right": "P[−1, −1]",
    "alpha_eff": "effective step size",
    "gamma_eff": "effective discount",
    "iws": "IWS to batch TD",
    "vd": "VD to batch TD",
}
SMOOTHED = ("iws", "vd")  # one fresh context per evaluation: a running mean over evaluations shows the trend
WINDOW = 10


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Six panels from the tables training and rivals; thin lines are seeds, the thick one their median."""
    training = tables["training"]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6.5))
    for panel, (metric, title) in zip(axes.flat, CURVES.items(), strict=False):
        _curve(panel, select(training, metric=metric), metric in SMOOTHED)
        panel.set(title=title, xlabel="training tasks")
    draw_distances(axes[1, 2], {"cartpole": "CartPole"}, tables["rivals"])
    figure.suptitle("Linear attention trained by multi-task TD on CartPole seen through 16 tiles")
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, smooth: bool) -> None:
    table = rows.pivot_table("value", "task_count", "seed")
    table = table.rolling(WINDOW, min_periods=1).mean() if smooth else table
    axes.plot(table.index, table.to_numpy(), color=SUBJECT["color"], linewidth=0.5, alpha=0.4)
    axes.plot(table.index, table.median(axis=1), color=SUBJECT["color"])
