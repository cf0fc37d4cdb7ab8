"""Seeds grouped by the signs of their constants, told from tables alone."""

import math

import pandas as pd
import pytest

from analyses.action_classes import BLOCKS, SHOWN, class_lines, classes, sign_class
from analyses.tables import select, tidy


def test_signs_are_those_of_both_constants_and_none_where_nothing_is_carried() -> None:
    assert sign_class(1.0, 0.5) == "α > 0, γ > 0"
    assert sign_class(-1.0, -0.5) == "α < 0, γ < 0"
    assert sign_class(0.04, 2.0) == sign_class(-0.04, -2.0) == sign_class(math.nan, 1.0) == "no sign"


def tables() -> dict[str, pd.DataFrame]:
    """Eight seeds: six as TD, one of other signs, and one of those that does not act."""
    axes = {"seed": range(8)}
    acting = [0.9] * 6 + [0.8, 0.6]
    values = dict.fromkeys(SHOWN, acting) | {
        "alpha_eff": [1.0] * 6 + [0.5, 0.5],
        "gamma_eff": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -1.0, -1.0],
    }
    seeds = [tidy(value, axes, metric=metric, subject="x") for metric, value in values.items()]
    lesions = [tidy([0.8 - 0.1 * i] * 8, axes, metric="accuracy", subject="x", target=b) for i, b in enumerate(BLOCKS)]
    lesions += [tidy([0.5] * 8, axes, metric="accuracy", subject="x", target="Q features,features")]
    labels = {"metric": "disagreement", "subject": "x", "target": "advantages"}
    left = {"td0": [0.1] * 6 + [0.9] * 2, "lstd": [0.5] * 8}
    rivals = [tidy(value, axes, learner=learner, **labels) for learner, value in left.items()]
    carried = tidy([[[0.1] * 8], [[0.3] * 8]], {"layer": [0, 1], "steps": [1], **axes}, subject="x", metric="cosine")
    parts = {"seeds": seeds, "lesions": lesions, "rivals": rivals, "successors": [carried]}
    return {name: pd.concat(part, ignore_index=True) for name, part in parts.items()}


def test_every_class_is_told_by_medians_over_its_own_seeds() -> None:
    found = classes(tables())
    assert select(found, metric="seeds").set_index("target")["value"].to_dict() == {
        "α > 0, γ > 0": 6,
        "α > 0, γ < 0": 1,
    }
    share = select(found, metric="share", target="α > 0, γ > 0").iloc[0]
    assert share["value"] == pytest.approx(6 / 7)
    assert 0.4 < share["low"] < 0.45 < 0.99 < share["high"] < 1  # Clopper and Pearson's
    as_td = select(found, target="α > 0, γ > 0").set_index("metric")
    assert as_td.loc["gamma_eff", ["value", "low", "high"]].tolist() == pytest.approx([0.35, 0.1, 0.6])
    assert as_td.loc["without Q features,features", "value"] == 0.5  # which costs much, though it is none of BLOCKS
    assert as_td.loc["nearest", ["learner", "value"]].tolist() == ["td0", 0.1]
    assert as_td.loc["squared cosine, 1 steps on", ["layer", "value"]].tolist() == [1, 0.3]
    assert select(found, target="α > 0, γ < 0", metric="nearest")["learner"].tolist() == ["lstd"]
    assert "x: 6 with α > 0, γ > 0, 86% [42%, 100%]: right 0.90" in "\n".join(class_lines(found))


def test_where_nobody_acts_there_are_no_classes() -> None:
    idle = tables()
    idle["seeds"] = idle["seeds"].assign(value=0.5)
    assert classes(idle).empty
    assert len(class_lines(classes(idle))) == 1
