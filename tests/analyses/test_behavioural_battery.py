"""The battery: who is a rival agrees with itself, kernels are averages by age, and the whole analysis runs, small."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import analyses.parallel
from algorithms.acting_bank import acting_learner
from analyses import behavioural_battery
from analyses.behavioural_battery import (
    RIVALS,
    agreements,
    answers,
    by_age,
    fading,
    kernels,
    run,
    signs,
    sober,
    summarise,
)
from analyses.configs import ANALYSES, BehaviouralBattery
from analyses.tables import select
from figures.behavioural_battery import draw
from probes.battery import BANDIT_TESTS
from probes.readings import BANDIT_READINGS, padded

SMOKE: BehaviouralBattery = ANALYSES["behavioural-battery"].preset("smoke")
FEW = ("random", "posterior-mean", "constant-step")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        patch.setattr(behavioural_battery, "RIVALS", FEW)
        return run(replace(SMOKE, n_arms=3, n_steps=20, pulls=(2,), d_model=8, out=tmp_path_factory.mktemp("runs")))


def said(names: tuple[str, ...], n_steps: int) -> dict[str, Tensor]:
    tests = {name: padded(BANDIT_TESTS[reading.test], 3) for name, reading in BANDIT_READINGS.items()}
    return answers(sober(names, {}), BANDIT_READINGS, tests, n_steps)


def test_rivals_do_without_lapses_and_are_told_what_they_must_know() -> None:
    known = sober(RIVALS, {"gittins": {"horizon": 37}})
    assert vars(known["gittins"])["horizon"] == 37
    assert vars(known["ucb"])["lapse"] == 0
    assert vars(known["exp3"])["lapse"] == 0.1


def test_a_rival_agrees_with_itself_wherever_it_can_be_told() -> None:
    table = agreements(said(FEW, 40), {name: [0] for name in FEW}, FEW)
    own = select(table, subject="constant-step", learner="constant-step").set_index("metric")["value"]
    assert own["agreement"] == 1
    assert 5 <= own["compared"] < len(BANDIT_READINGS)
    assert select(table, subject="constant-step", learner="posterior-mean", metric="agreement")["value"].item() < 1


def test_tests_that_are_too_long_are_not_made() -> None:
    names = np.array(list(BANDIT_READINGS))
    assert set(names[said(("random",), 40)["random"][0].isnan().numpy()]) == {"G", "H"}  # 44 and 93 pulls


def test_kernels_are_means_by_age() -> None:
    values, age = torch.tensor([[[1.0, 3.0, 5.0]]]).double(), torch.tensor([[[1, 0, 0]]])
    mean, _ = by_age(values.expand(1, 2, 3), age.expand(1, 2, 3))
    assert mean.tolist() == [[4, 1]]
    learner = acting_learner("constant-step", {"step_size": 0.2, "temperature": 1.0, "lapse": 0.0})
    table = kernels({"it": learner}, {"it": [0]}, [3], 3)
    own = select(table, metric="own", target="own lag").set_index("lag")
    assert own["value"].tolist() == pytest.approx([0.2, 0.16, 0.128], abs=1e-10)
    assert (own["high"] - own["low"]).max() < 1e-10
    newest, oldest, others = fading(table, "it", 3)
    assert (newest, oldest) == pytest.approx((0.2 / 0.488, 0.128 / 0.488), abs=1e-10)
    assert others == pytest.approx(0, abs=1e-10)


def test_signs_say_what_cannot_be_told() -> None:
    assert signs(np.array([1.0, -1.0, 0.0, 0.2, np.nan])) == ["+", "-", "0", "?", "."]


def test_the_analysis_runs_and_is_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    policies = {"distilled", "decision-pretrained", "reinforced"}
    assert set(tables["answers"]["subject"]) == policies | set(FEW)
    assert select(tables["answers"], group="policy")["seed"].nunique() == SMOKE.seeds
    assert set(tables["influence"]["subject"]) == policies | set(FEW) - {"random"}
    text = summarise(tables)
    assert all(name in text for name in policies)
    assert isinstance(draw(tables), Figure)
