"""How does the loss fall with the context? A network trained at every length, beside every rival's own optimum there.

The published baselines (see `analyses.loss_vs_depth`) are re-created at every length too. By default the networks are
of the sparse family. The full one's loss is a mean of polynomials of degree 26 in the examples' moments: on contexts
shorter than about 16 rare prompts dominate it, and weights fitted to a fixed batch can lose thousands on new ones. So
do the five numbers of GD++ themselves: those for 12 examples, the best on 100,000 contexts, leave .012 there, and on
200,000 others .47 (standard error .46), nearly all of it in one context. Its intervals say where its mean means little.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analyses.configs import LossVsContext
from analyses.loss_vs_depth import loss_table, losses
from tasks.errors import ConfigError

ANALYSIS = "loss-vs-context"


def run(config: LossVsContext) -> dict[str, pd.DataFrame]:
    """Table losses: by context length (index column context) and family of parameters (subject)."""
    if min(config.context_lengths) < 2:
        raise ConfigError(
            f"context_lengths has {min(config.context_lengths)}; allowed: at least 2, for the baselines leave one out"
        )
    tables = [losses(config, config.n_layers, n).assign(context=n) for n in config.context_lengths]
    return {"losses": pd.concat(tables, ignore_index=True).assign(analysis=ANALYSIS)}


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Median losses by context length."""
    return loss_table(tables["losses"], "context")
