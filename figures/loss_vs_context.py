"""Loss against context length: trained networks, every rival's own optimum, and the published, weaker baselines."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from figures.loss_vs_depth import draw_losses


def draw(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel by context length."""
    return draw_losses(tables["losses"], "context", "examples in the context")
