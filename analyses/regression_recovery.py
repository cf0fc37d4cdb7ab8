"""How often is the verdict wrong on networks of in-context regression? As `analyses.model_recovery`, on other networks.

They are those of `analyses.planted_regression`, asked as `learnscope inspect --task linear-regression` asks.
"""

from __future__ import annotations

import pandas as pd

from analyses.configs import RegressionRecovery
from analyses.model_recovery import recover, summarise
from analyses.planted_regression import REGRESSION

__all__ = ["run", "summarise"]


def run(config: RegressionRecovery) -> dict[str, pd.DataFrame]:
    """The tables of `recover` for networks of labelled examples."""
    return recover(REGRESSION, config, "regression-recovery")
