"""What several figures draw alike: which learners the verdicts on the seeds of each subject name."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from figures.style import LABELS, LEARNERS

NONE = "none"
PALEST = 0.15  # of a cell that one seed of many names
FEWEST_ROWS = 4  # so that a single one does not fill the panel


def draw_verdicts(axes: Axes, names: Sequence[str], groups: Sequence[pd.DataFrame]) -> None:
    """A column per subject, from the answers of its seeds; a row per learner, and for `none`: how many seeds name it.

    Bold: identified. In brackets: ambiguous, so that other rows count these seeds too.
    """
    named = {name for answers in groups for names_ in answers["learner"] for name in names_.split(", ")}
    rows = [*(name for name in LEARNERS if name in named), NONE]
    for column, answers in enumerate(groups):
        for row, learner in enumerate(rows):
            mine = answers[_names(answers, learner)]
            sure = int((mine["outcome"] != "ambiguous").sum())
            unsure = len(mine) - sure
            if not len(mine):
                continue
            colour, alpha = LEARNERS.get(learner, {"color": "0.5"})["color"], len(mine) / len(answers)
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, color=colour, alpha=PALEST + 0.5 * alpha, linewidth=0))
            text = " + ".join([str(sure)] * bool(sure) + [f"({unsure})"] * bool(unsure))
            weight = "bold" if sure and learner != NONE else "normal"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, fontweight=weight)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(rows)), [LABELS.get(name, "no rival fits") for name in rows])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(max(len(rows), FEWEST_ROWS) - 0.5, -0.5))
    axes.set_title("Verdicts: seeds that name it (in brackets: among others)")
    axes.tick_params(length=0)
    axes.grid(visible=False)


def _names(answers: pd.DataFrame, learner: str) -> pd.Series:
    if learner == NONE:
        return answers["outcome"] == NONE
    return answers["learner"].map(lambda names: learner in names.split(", "))
