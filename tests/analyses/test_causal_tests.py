"""The table of tests by pairs comes from learners alone; constructions move exactly as their own learner predicts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from algorithms.bank import RIVALS
from algorithms.fit import converges
from analyses.causal_tests import (
    LAYOUT,
    PLANTED,
    RANDOM,
    SEPARATED,
    network,
    prompt_for,
    reference,
    run,
    summarise,
)
from analyses.configs import ANALYSES, CausalTests
from analyses.tables import select
from figures.causal_tests import draw
from figures.style import house_style
from probes.behaviour import predict

CONFIG: CausalTests = ANALYSES["causal-tests"].preset("smoke")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return run(CONFIG)


class TestSeparation:
    def test_every_pair_is_asked_of_every_test(self, tables: dict[str, pd.DataFrame]) -> None:
        rows = select(tables["separation"], metric="unexplained")
        n = len(RIVALS) - 1  # all but the zero predictor
        assert len(rows) == rows["test"].nunique() * n**2
        own = rows[rows["learner"] == rows["target"]]
        assert own["value"].dropna().max() < 1e-8

    def test_a_pair_takes_the_smaller_direction_that_counts(self, tables: dict[str, pd.DataFrame]) -> None:
        both = select(tables["separation"], metric="separation", test="bootstrap lesion")
        one = select(tables["separation"], metric="unexplained", test="bootstrap lesion")
        shares = one.set_index(["learner", "target"])["value"]
        pairs = both.set_index(["learner", "target"])["value"]
        # TD(0) contains the myopic learner, so only the other direction counts
        assert pairs["myopic", "td0"] == shares["td0", "myopic"] == pytest.approx(1)
        lower = min(shares["td0", "lstd"], shares["lstd", "td0"])
        assert pairs["td0", "lstd"] == lower
        assert ("td0", "myopic") not in pairs

    def test_the_lesion_separates_what_predictions_do_not(self, tables: dict[str, pd.DataFrame]) -> None:
        rows = select(tables["separation"], metric="separation", learner="td0", target="residual-gradient")
        share = rows.set_index("test")["value"]
        assert share["no edit: predictions"] < SEPARATED < share["bootstrap lesion"]


class TestSlopes:
    def test_a_constructions_own_learner_has_slope_one(self, tables: dict[str, pd.DataFrame]) -> None:
        rows = tables["slopes"]
        own = rows[(rows["learner"] == rows["subject"]) & (rows["metric"] == "slope")]
        assert set(own["subject"]) == set(PLANTED)
        assert (own["value"].dropna() - 1).abs().max() < 1e-6
        undefined = own[own["value"].isna()]
        assert set(undefined["subject"]) == {"myopic"}
        assert set(undefined["test"]) == {"bootstrap lesion", "discount × 0.5", "discount × 1.25"}

    def test_the_control_is_unexplained(self, tables: dict[str, pd.DataFrame]) -> None:
        rows = select(tables["slopes"], subject=RANDOM, learner="td0", metric="unexplained")
        assert rows["value"].median() > 0.5

    def test_intervals_hold_their_value(self, tables: dict[str, pd.DataFrame]) -> None:
        rows = tables["slopes"].dropna(subset=["value", "low", "high"])
        assert len(rows) > 100
        assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()


def test_reach_is_one_transition_less_than_the_steps(tables: dict[str, pd.DataFrame]) -> None:
    reach = select(tables["profiles"], metric="stitching").pivot(index="distance", columns="learner", values="value")
    (steps,) = CONFIG.depths
    assert (reach["td0"][:steps] > 0.1).all()
    assert np.allclose(reach["td0"][steps:], 0)
    assert (reach["lstd"] > 0.3).all()


@pytest.mark.parametrize("depth", [3, 8])
def test_reference_learners_are_stable(depth: int) -> None:
    prompt = prompt_for(LAYOUT, "test", 50, 30)
    for name, learner in reference(depth, CausalTests.step_size).items():
        assert converges(learner.predict(prompt), prompt).double().mean() > 0.95, name


def test_networks_of_a_kind_differ_and_do_not_depend_on_their_number() -> None:
    prompt = prompt_for(LAYOUT, "test", 3, 30)
    for kind in (RANDOM, "td0", "td-plus-plus"):
        two, three = (predict(network(kind, 2, n), prompt) for n in (2, 3))
        torch.testing.assert_close(two, three[:2], rtol=1e-9, atol=1e-12)
        assert (two[0] - two[1]).abs().max() > 1e-3


def test_the_summary_counts_pairs_and_the_figure_is_drawn(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    text = summarise(tables)
    assert "45 pairs of rivals" in text
    assert "slopes from 1.000000 to 1.000000" in text
    with house_style():
        draw(tables).savefig(tmp_path / "figure.png", dpi=40)
