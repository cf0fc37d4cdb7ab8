"""The instruments of value against policy on networks whose algorithm is known, then the whole analysis, small."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from analyses.action_subjects import Subjects, held_out, preferences
from analyses.configs import ANALYSES, ValueVsPolicy
from analyses.tables import select
from analyses.value_vs_policy import (
    accuracies,
    advantages_examined,
    inside,
    references,
    run,
    summarise,
)
from figures.save import save_figure
from figures.value_vs_policy import draw
from models.constructions import td0
from models.linear import LinearTransformer
from models.train_actions import first_network

SMALL = ValueVsPolicy(test_tasks=40, fitting_tasks=16, seeds=1, n_layers=3)
SUBJECTS = Subjects(SMALL, "planted")


def planted(alpha: float = 6.0, unit: float = 1.0) -> LinearTransformer:
    """TD(0) with steps of that size, its answers in another unit: rewards enter, and answers leave, `unit` as large."""
    model = td0(alpha * torch.eye(14, dtype=torch.float64)[None, None], n_layers=3)
    P = model.P.detach().clone()
    return LinearTransformer(model.config, unit * P, model.Q.detach() / unit)


def test_accuracy_knows_the_best_the_worst_and_the_indifferent() -> None:
    test = held_out(SUBJECTS)
    assert test.accuracy(test.optimal).item() == 1.0
    assert test.accuracy(-test.optimal).item() == 0.0
    assert test.accuracy(torch.zeros_like(test.optimal)).item() == pytest.approx(0.5)


def test_a_planted_td_network_is_named_on_advantages_and_an_untrained_one_is_not() -> None:
    said = advantages_examined(SUBJECTS, planted()).verdicts[0]
    assert "td0" in said.learners
    assert not {"myopic", "lstd", "zero"} & {*said.learners}
    untrained = first_network(SUBJECTS.config, [0]).double()
    assert advantages_examined(SUBJECTS, untrained).verdicts[0].outcome == "none"


def test_td_acts_far_above_chance_and_lives_on_its_blocks() -> None:
    test, model = held_out(SUBJECTS), planted()
    found = accuracies(model, test)
    assert found["accuracy"] > 0.8
    assert found["accuracy, lesion"] == pytest.approx(0.5, abs=0.12)
    tables = inside(model, test, "td0", [0])
    lesioned = select(tables["lesions"], metric="accuracy").set_index("target")["value"]
    assert lesioned["P reward,reward"] == pytest.approx(0.5)
    assert lesioned["P next_features,next_features"] == pytest.approx(found["accuracy"].item())
    assert (tables["successors"]["value"] == 0).all()  # TD keeps no law of next states


def test_references_tell_the_myopic_learner_from_td() -> None:
    found = references(SMALL).set_index("learner")["value"]
    assert found["myopic"] == pytest.approx(0.5, abs=0.12)
    assert found["td0"] > 0.8
    assert found["true Q of the walk"] == 1.0  # on rings, evaluation is all it takes


def test_the_analysis_runs_and_is_drawn(tmp_path: Path) -> None:
    preset = ANALYSES["value-vs-policy"].preset("smoke")
    config = replace(preset, objectives=("optimal-imitation",), seeds=1, n_layers=2, test_tasks=8, out=tmp_path)
    tables = run(config)
    assert {*tables} == {"seeds", "lesions", "successors", "verdicts", "rivals", "training", "references"}
    assert set(tables["seeds"]["subject"]) == {"optimal-imitation", "untrained"}
    assert (select(tables["verdicts"], subject="untrained")["outcome"] == "none").all()
    assert "references: true Q of the walk 1.00, myopic" in summarise(tables)
    assert all(path.stat().st_size > 0 for path in save_figure(draw, tables, tmp_path, "figure"))
    test = held_out(Subjects(config, "x"))
    assert preferences(first_network(Subjects(config, "x").config, [0]).double(), test).shape == (1, 8, 7, 2)


def test_preferences_that_are_not_finite_are_none() -> None:
    test = held_out(SUBJECTS)
    broken = test.optimal.clone()
    broken[:, 0] = torch.nan
    assert test.accuracy(broken).isfinite().all()
    assert test.accuracy(broken) < 1


def test_tables_are_tidy_for_every_seed() -> None:
    frame = inside(planted(), held_out(SUBJECTS), "td0", [0])["lesions"]
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 2 * 18
