"""What policies trained on rings and their rivals say to each test of the battery."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from figures.behavioural_battery import answer_matrix
from probes.ring_battery import RING_READINGS


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Signed answers by test, policies beside rivals."""
    figure = Figure(figsize=(12, 6.5))
    answer_matrix(figure.subplots(), tables["answers"], RING_READINGS)
    return figure
