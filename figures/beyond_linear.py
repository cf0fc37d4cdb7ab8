"""Architectures side by side: how good they are, how similar to TD, how far from every rival, and what is said of them.

Behind that page, the evidence card of every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.tables import select
from figures import evidence_card
from figures.rivals import draw_distances, spread
from figures.style import LEARNERS, PUBLISHED, SUBJECT
from figures.verdicts import draw_verdicts

NAMES = {
    "linear": "linear",
    "relu": "ReLU",
    "softmax": "softmax\n(keys)",
    "softmax-over-queries": "softmax\n(queries)",
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


def draw(tables: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """The page of all architectures, and their evidence cards by "card-" and their name."""
    architectures = tables["answers"]["subject"].unique()
    return {"": _side_by_side(tables), **{f"card-{name}": _card(tables, name) for name in architectures}}


def _side_by_side(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Eight panels; black dots are seeds, crosses the paper's means.

    Beside them, where a score is theirs too, the medians of the myopic learner and of softmax TD, fitted to the seeds.
    """
    scores, rivals, answers = tables["scores"], tables["rivals"], tables["answers"]
    names = {name: NAMES[name] for name in answers["subject"].unique()}
    figure = Figure(figsize=(13.5, 10.5))
    rows: Any = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    for panel, (metric, title) in zip(rows[0].subplots(2, 3).flat, SCORES.items(), strict=True):
        for place, architecture in enumerate(names):
            _score(panel, place, select(scores, subject=architecture, metric=metric))
        panel.set(title=title, yscale="log" if metric == "vd" else "linear")
        panel.set_xticks(range(len(names)), list(names.values()))
    distances, verdicts = rows[1].subplots(1, 2, width_ratios=[1.5, 1])
    draw_distances(distances, names, rivals)
    draw_verdicts(verdicts, list(names.values()), [select(answers, subject=name) for name in names])
    figure.suptitle("Value estimators beyond linear attention, trained by the same multi-task TD")
    return figure


def _card(tables: Mapping[str, pd.DataFrame], architecture: str) -> Figure:
    mine = {name: select(tables[name], subject=architecture) for name in ("answers", "findings")}
    return evidence_card.draw({name: table.assign(subject=table["network"]) for name, table in mine.items()})


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
