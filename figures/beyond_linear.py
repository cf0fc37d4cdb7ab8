"""Architectures side by side: how good they are, how similar to TD, and how far from every fitted rival."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures.rivals import draw_distances, spread
from figures.style import LEARNERS, PUBLISHED, SUBJECT

NAMES = {
    "linear": "linear",
    "relu": "ReLU",
    "softmax": "softmax\nover keys",
    "softmax-over-queries": "softmax\nover queries",
    "softmax-mlp": "softmax\n+ MLP",
}
SCORES = {
    "skill": "Skill: 1 − MSVE / that of zero",
    "iws": "IWS to batch TD",
    "ss": "SS to batch TD",
    "vd": "VD to batch TD",
    "r_squared": "R² of linearity in the query",
    "constant_share": "Share of one value per context",
}
CONTROLS = ("myopic", "softmax-td")  # fitted to the network: what a score is worth


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Seven panels from the tables scores and rivals; black dots are seeds, crosses the paper's means.

    Beside them, where a score is theirs too, the medians of the myopic learner and of softmax TD, fitted to the seeds.
    """
    scores, rivals = tables["scores"], tables["rivals"]
    names = {name: NAMES[name] for name in rivals["subject"].unique()}
    metrics = list(SCORES)
    figure, axes = plt.subplot_mosaic([[*metrics[:3], "rivals"], [*metrics[3:], "rivals"]], figsize=(15, 7))
    for metric, title in SCORES.items():
        panel = axes[metric]
        for place, architecture in enumerate(names):
            _score(panel, place, select(scores, subject=architecture, metric=metric))
        panel.set(title=title)
        panel.set_xticks(range(len(names)), list(names.values()))
    draw_distances(axes["rivals"], names, rivals)
    figure.suptitle("Value estimators beyond linear attention, trained by the same multi-task TD")
    return figure


def _score(axes: Axes, place: int, rows: pd.DataFrame) -> None:
    own = select(rows, learner="subject")["value"]
    axes.plot(spread(place, len(own)), own, linestyle="none", alpha=0.7, **SUBJECT)
    for offset, learner in zip((-0.3, 0.3), CONTROLS, strict=True):
        theirs = select(rows, learner=learner)["value"]
        if len(theirs):
            axes.plot(place + offset, theirs.median(), linestyle="none", markersize=5, **LEARNERS[learner])
    published = select(rows, learner="published")["value"]
    if len(published):
        axes.plot(place, published.iloc[0], **PUBLISHED, markersize=9)
