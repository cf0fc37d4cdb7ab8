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
    surest,
)
from analyses.configs import ANALYSES, BehaviouralBattery
from analyses.in_context_improvement import subjects
from analyses.tables import select, tidy
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


def test_one_agreement_of_one_is_less_sure_than_nine_of_ten() -> None:
    """The lower end p of an exact interval solves P(X >= k) = .025 where X ~ Binomial(n, p)."""
    tables = [
        tidy([share, share], {"seed": [0, 1]}, learner=name, metric="agreement")
        for name, share in (("lucky", 1.0), ("often", 0.9), ("never asked", np.nan))
    ]
    tables += [
        tidy([n, n], {"seed": [0, 1]}, learner=name, metric="compared")
        for name, n in (("lucky", 1.0), ("often", 10.0), ("never asked", 0.0))
    ]
    found = surest(pd.concat(tables, ignore_index=True))
    assert list(found.index) == ["often", "lucky"]
    low = found.loc["often", "at_least"]
    assert 10 * low**9 * (1 - low) + low**10 == pytest.approx(0.025, abs=1e-8)
    assert found.loc["lucky", "at_least"] == pytest.approx(0.025, abs=1e-8)


@pytest.mark.parametrize("preset", ["smoke", "laptop", "paper"])
def test_what_another_analysis_has_trained_is_not_trained_again(preset: str) -> None:
    own, other = (subjects(ANALYSES[name].preset(preset)) for name in ("behavioural-battery", "in-context-improvement"))
    assert {name: subject.folder for name, subject in own.items()} == {name: s.folder for name, s in other.items()}
    assert "test_tasks" not in vars(SMOKE)


def test_the_analysis_runs_and_is_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    policies = {"distilled", "decision-pretrained", "reinforced"}
    assert set(tables["answers"]["subject"]) == policies | set(FEW)
    assert select(tables["answers"], group="policy")["seed"].nunique() == SMOKE.seeds
    assert set(tables["influence"]["subject"]) == policies | set(FEW) - {"random"}
    text = summarise(tables)
    assert all(name in text for name in policies)
    assert isinstance(draw(tables), Figure)
