"""Confidence is a share of right answers among like ones, with the exact interval."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from probes.calibration import COLUMNS, MARGIN, NOISE, SHIPPED, cell, confidence, count, exact_share, shipped
from probes.verdict import Verdict

SURE = Verdict("identified", ("td0",), "", noise=1e-9, margin=np.inf)
NOISY = Verdict("identified", ("td0",), "", noise=0.01, margin=5.0)
NONE = Verdict("none", (), "", noise=0.5)


def test_cells_part_outcomes_noise_and_margin():
    assert cell(SURE) == ("identified", 0, len(MARGIN))
    assert cell(NOISY) == ("identified", 3, 0)
    assert cell(NONE) == ("none", len(NOISE), 0)
    assert cell(Verdict("none", (), "")) == ("none", len(NOISE), 0), "a subject that diverges has no noise"


def test_confidence_is_the_share_of_like_answers_that_were_right():
    counts = count([SURE, SURE, NOISY, NOISY, NOISY, NOISY], [True, True, True, True, True, False])
    said = confidence(NOISY, counts)
    assert said is not None
    assert (said.rate, said.n) == (0.75, 4)
    sure = confidence(SURE, counts)
    assert sure is not None
    assert sure.rate == 1
    assert confidence(NONE, counts) is None


def test_the_interval_is_clopper_pearson():
    """No error in n: the upper end solves (1 - p)^n = .025."""
    none, some = exact_share(0, 300), exact_share(3, 10)
    assert none is not None
    assert none.low == 0
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 300), rel=1e-12)
    assert some is not None
    assert some.low == pytest.approx(stats.beta.ppf(0.025, 3, 8), rel=1e-6)
    assert exact_share(0, 0) is None


@pytest.mark.parametrize("target", SHIPPED)
def test_the_shipped_counts_are_whole(target):
    counts = shipped(target)
    assert list(counts.columns) == COLUMNS
    assert not counts.duplicated(COLUMNS[:3]).any()
    assert (counts.right <= counts.n).all()
    assert counts.n.sum() >= {"reward": 300, "label": 100}[target]
    assert isinstance(counts, pd.DataFrame)
