"""The battery on rings: rivals are told what they must know, and the whole analysis runs, small."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import analyses.parallel
from analyses import control_battery
from analyses.configs import ANALYSES, ControlBattery
from analyses.control_battery import rivals, run, summarise
from figures.control_battery import draw
from probes.ring_battery import RING_READINGS

SMOKE: ControlBattery = ANALYSES["control-battery"].preset("smoke")


def test_rivals_plan_through_the_ring_and_step_far_enough() -> None:
    known = rivals(9)
    assert vars(known["ucb-vi"])["n_sweeps"] == 9
    assert vars(known["sarsa"])["step_size"] == 0.4
    assert vars(known["sarsa"])["lapse"] == 0


def test_the_analysis_runs_and_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(analyses.parallel, "cpu_count", lambda: 1)
    monkeypatch.setattr(control_battery, "RIVALS", ("random", "q-learning"))
    kept = control_battery.control_subjects

    def few(config: ControlBattery) -> dict:
        return dict(list(kept(config).items())[:2])

    monkeypatch.setattr(control_battery, "control_subjects", few)
    tables = run(replace(SMOKE, d_model=8, n_layers=1, out=tmp_path))
    answers = tables["answers"]
    assert set(answers["target"]) == set(RING_READINGS)
    assert answers.groupby("group")["subject"].nunique().to_dict() == {"policy": 2, "rival": 2}
    text = summarise(tables)
    assert "decision-pretrained" in text
    assert isinstance(draw(tables), Figure)
