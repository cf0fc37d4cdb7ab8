"""How far an answer can be trusted: how often such an answer was right on planted networks.

An answer is described by its outcome, by its noise (what the nearest rival leaves unexplained) and by its margin (how
many times as far the nearest rival that it excludes lies). The planted benchmarks (`learnscope run model-recovery` and
`regression-recovery`) count, for every cell of that description, on how many networks whose algorithm is known the
answer was right. The counts are kept in files beside this one, one for each bank of rivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from probes.verdict import Confidence, Verdict

# By what the networks learn from, in the layout of their tokens.
SHIPPED = {"reward": "calibration.csv", "label": "calibration-regression.csv"}
NOISE = (1e-6, 1e-3, 5e-3, 0.02, 0.1)  # upper ends of the classes; the last one is open
MARGIN = (16.0, 256.0)
COLUMNS = ["outcome", "noise", "margin", "right", "n"]


def cell(verdict: Verdict) -> tuple[str, int, int]:
    """The outcome and the classes of noise and margin; `none` has no margin, and counts in the first class."""
    margin = 0 if np.isnan(verdict.margin) else int(np.digitize(verdict.margin, MARGIN))
    return verdict.outcome, int(np.digitize(verdict.noise, NOISE)), margin


def count(verdicts: Sequence[Verdict], right: Sequence[bool]) -> pd.DataFrame:
    """The table of counts, one row per cell that occurs: outcome, noise, margin, right, n."""
    rows = pd.DataFrame([cell(verdict) for verdict in verdicts], columns=COLUMNS[:3]).assign(right=list(right), n=1)
    return rows.astype({"right": int}).groupby(COLUMNS[:3], as_index=False)[["right", "n"]].sum()


def confidence(verdict: Verdict, counts: pd.DataFrame) -> Confidence | None:
    """The share of right answers in the verdict's cell with its exact interval; None where the cell is empty."""
    outcome, noise, margin = cell(verdict)
    rows = counts[(counts.outcome == outcome) & (counts.noise == noise) & (counts.margin == margin)]
    return exact_share(int(rows.right.sum()), int(rows.n.sum()))


def exact_share(right: int, n: int) -> Confidence | None:
    """A share with its exact (Clopper-Pearson) 95 % interval; None of none."""
    if not n:
        return None
    result = stats.binomtest(right, n)
    low, high = result.proportion_ci(0.95, method="exact")
    return Confidence(right / n, float(low), float(high), n)


@cache
def shipped(target: str = "reward") -> pd.DataFrame:
    """The counts that came with this checkout, of networks that learn from rewards or from labels."""
    return pd.read_csv(Path(__file__).with_name(SHIPPED[target]), usecols=COLUMNS)
