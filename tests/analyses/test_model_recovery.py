"""The benchmark's own arithmetic: what counts as right, how thresholds are chosen, and that bounds are bounds."""

import numpy as np
import pandas as pd
import pytest

from analyses.model_recovery import GRID, _clustered, answer, choose, judge
from probes.verdict import THRESHOLDS, Verdict

TD = frozenset({"td0", "td-lambda"})


@pytest.mark.parametrize(
    ("outcome", "learners", "right", "borderline", "judged"),
    [
        ("identified", ("td0",), TD, False, "right"),
        ("identified", ("lstd",), TD, False, "wrong"),
        ("identified", ("td0", "lstd"), TD, False, "wrong"),
        ("identified", ("td0",), (), False, "wrong"),
        ("none", (), (), False, "right"),
        ("none", (), TD, False, "missed"),
        ("none", (), TD, True, "right"),
        ("identified", ("td0",), TD, True, "right"),
        ("ambiguous", ("td0", "lstd"), TD, False, "ambiguous"),
        ("ambiguous", ("td0", "lstd"), (), False, "ambiguous"),
    ],
)
def test_judgements(outcome, learners, right, borderline, judged):
    assert judge(Verdict(outcome, learners, ""), right, borderline) == judged


def test_thresholds_are_chosen_on_the_other_kinds():
    """The default is false once on kind b: with b left out that does not count."""
    score = np.zeros((len(GRID), 3, 2), dtype=int)
    score[..., 1] = 5
    score[0, 2] = [1, 9]
    kinds = ["a", "a", "b"]
    assert choose(score, kinds) == GRID[1]
    assert choose(score, kinds, without="b") == GRID[0] == THRESHOLDS
    score[2, 0, 1] += 1
    assert choose(score, kinds, without="b") == GRID[2], "of those that say nothing false, the most often right"


def test_whole_kinds_are_resampled():
    """All errors in one of four kinds: by network the rate is known well, by kind it is not."""
    kinds = pd.Series(np.repeat(list("abcd"), 25))
    hit = (kinds == "a").astype(bool)
    assert _clustered(kinds, hit) >= 0.5
    spread = pd.Series(np.tile([True, False, False, False, False], 20))
    assert _clustered(kinds, spread) == pytest.approx(0.2)
    assert _clustered(kinds, spread, 0.025) == pytest.approx(0.2)


def test_no_hit_at_all_is_bounded_by_the_number_of_kinds():
    """None of four kinds: (1 - p)^4 = .025."""
    kinds = pd.Series(np.repeat(list("abcd"), 25))
    assert _clustered(kinds, pd.Series(np.zeros(100, dtype=bool))) == pytest.approx(1 - 0.025**0.25)


def test_an_answer_is_one_column():
    assert answer(Verdict("identified", ("reward-average", "myopic"), "")) == "reward-average"
    assert answer(Verdict("ambiguous", ("td0", "lstd"), "")) == "ambiguous"
    assert answer(Verdict("none", (), "")) == "none"
