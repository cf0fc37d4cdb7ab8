"""What several figures draw alike: the disagreement of subjects with every rival fitted to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.tables import select
from figures.style import LABELS, VALUE_LEARNERS

SMALLEST = 1e-4
LOOKS = {**VALUE_LEARNERS, "mean-reward": {"color": "#FF99CC", "marker": "d"}}
NAMES = {**LABELS, "mean-reward": "multiple of mean reward"}


def draw_distances(axes: Axes, names: Mapping[str, str], rivals: pd.DataFrame) -> None:
    """One column per subject (name -> label): each rival's median over seeds and tasks with its interval."""
    pooled = select(rivals, metric="disagreement")
    pooled = pooled[pooled["seed"].isna()]
    shown = [learner for learner in LOOKS if learner in set(pooled["learner"])]
    for place, learner in enumerate(shown):
        mine = select(pooled, learner=learner).set_index("subject").reindex(list(names))
        ends = mine[["value", "low", "high"]].clip(lower=SMALLEST)
        error = np.abs(ends[["low", "high"]].to_numpy().T - ends["value"].to_numpy())
        at = np.arange(len(names)) + 0.6 * (place / (len(shown) - 1) - 0.5)
        axes.errorbar(
            at, ends["value"], error, label=NAMES[learner], linestyle="none", elinewidth=0.8, **LOOKS[learner]
        )
    axes.axhline(rivals["fits_below"].iloc[0], color="0.4", linestyle="--", linewidth=0.8)
    axes.set_xticks(range(len(names)), list(names.values()))
    axes.set(title="Disagreement with fitted rivals (below the line: fits)", yscale="log", ylim=(None, 2))
    axes.legend(fontsize="xx-small", loc="center left", bbox_to_anchor=(1, 0.5))


def spread(place: float | int, n: int) -> np.ndarray:
    """Places for the dots of n seeds around `place`."""
    return place + (np.linspace(-0.1, 0.1, n) if n > 1 else np.zeros(n))
