"""The instruments of value against policy on networks whose algorithm is known, then the whole analysis, small."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from analyses.action_edits import HELD, accuracies, held, inside
from analyses.action_planted import PLANTED, planted
from analyses.action_subjects import Subjects, held_out, preferences
from analyses.configs import ANALYSES, ValueVsPolicy
from analyses.tables import select
from analyses.value_vs_policy import examined, of_states, references, run, summarise
from figures.save import save_figure
from figures.value_vs_policy import draw
from models.constructions import rescaled, td0
from models.linear import LinearTransformer, layout_of
from models.train_actions import first_network
from probes.behaviour import predict
from probes.discrimination import PromptFamily, prompts_from

SMALL = ValueVsPolicy(test_tasks=40, fitting_tasks=16, seeds=1, n_layers=3)
SUBJECTS = Subjects(SMALL, "planted")
FEW = replace(SMALL, test_tasks=12, fitting_tasks=6)
QUICK = ("zero", "myopic", "td0", "td-plus-plus", "lstd")  # rivals without traces or returns, which take long


def construction(alpha: float = 6.0) -> LinearTransformer:
    """TD(0) with steps of that size."""
    return td0(alpha * torch.eye(14, dtype=torch.float64)[None, None], n_layers=3)


def test_accuracy_knows_the_best_the_worst_and_the_indifferent() -> None:
    test = held_out(SUBJECTS)
    assert test.accuracy(test.optimal).item() == 1.0
    assert test.accuracy(-test.optimal).item() == 0.0
    assert test.accuracy(torch.zeros_like(test.optimal)).item() == pytest.approx(0.5)


def test_td_is_named_whatever_its_gauge_and_an_untrained_network_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.value_vs_policy.RIVALS", QUICK)
    subjects = Subjects(FEW, "planted")
    said = examined(subjects, rescaled(construction(), -3.0), "advantages").verdicts[0]
    assert "td0" in said.learners
    assert not {"myopic", "lstd", "zero"} & {*said.learners}
    untrained = first_network(SUBJECTS.config, [0]).double()
    assert examined(subjects, untrained, "advantages").verdicts[0].outcome == "none"


@pytest.mark.parametrize("name", ["planted TD(0), 3 % noise", "planted TD++"])
def test_planted_networks_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.value_vs_policy.RIVALS", QUICK)
    subjects, model, members = planted(FEW, name)
    assert members == [0]
    learner, _ = PLANTED[name]
    assert examined(subjects, model, "advantages").verdicts[0].learners == (learner,)


def test_state_values_are_means_over_actions_and_name_td(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyses.value_vs_policy.RIVALS", QUICK)
    layout, walks = layout_of(SUBJECTS.config), SUBJECTS.walks
    own = PromptFamily("own", walks, 80, layout.discount)
    pairs, states = prompts_from(layout)(own, "x", 5), of_states(prompts_from(layout), walks.family)(own, "x", 5)
    assert torch.equal(states.context, pairs.context)
    model = construction()
    by_pair, by_state = (predict(model, prompt) for prompt in (pairs, states))
    for pair_values, values in ((by_pair, by_state), (pairs.answers, states.answers)):
        assert torch.allclose(pair_values.unflatten(-2, (7, 2)).mean(-2), values, atol=1e-12, rtol=0)
    assert examined(Subjects(FEW, "planted"), model, "values").verdicts[0].learners == ("td0",)


def test_td_keeps_its_errors_in_the_reward_slots_and_nothing_anywhere_else() -> None:
    test, model = held_out(SUBJECTS), construction()
    whole = preferences(model, test)
    without = {name: held(model, test, blocks) for name, blocks in HELD.items()}
    assert torch.allclose(without["accuracy, features held"], whole, atol=1e-10, rtol=0)
    assert torch.allclose(without["accuracy, rewards out of features"], whole, atol=1e-10, rtol=0)
    # with rewards for TD errors every turn adds the first one's step once more
    once = LinearTransformer(replace(model.config, n_layers=1), model.P.detach(), model.Q.detach())
    assert torch.allclose(without["accuracy, rewards held"], 3 * preferences(once, test), atol=1e-10, rtol=0)
    assert torch.allclose(held(model, test, []), whole, atol=1e-10, rtol=0)
    subjects, plus_plus, _ = planted(SMALL, "planted TD++")
    rewritten = held(plus_plus, held_out(subjects), HELD["accuracy, features held"])
    assert not torch.allclose(rewritten, preferences(plus_plus, test), atol=0.01, rtol=0)


def test_td_acts_far_above_chance_and_lives_on_its_blocks() -> None:
    test, model = held_out(SUBJECTS), construction()
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


def test_the_analysis_runs_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = "planted TD(0)"
    monkeypatch.setattr("analyses.value_vs_policy.PLANTED", {control: PLANTED[control]})
    monkeypatch.setattr("analyses.value_vs_policy.RIVALS", QUICK)
    preset = ANALYSES["value-vs-policy"].preset("smoke")
    config = replace(preset, objectives=("optimal-imitation",), seeds=1, n_layers=2, out=tmp_path)
    config = replace(config, test_tasks=8, fitting_tasks=4)
    tables = run(config)
    assert {*tables} == {"seeds", "lesions", "successors", "verdicts", "rivals", "training", "references", "classes"}
    assert set(tables["seeds"]["subject"]) == {"optimal-imitation", control, "untrained"}
    assert set(select(tables["verdicts"], target="values")["subject"]) == {control}
    assert select(tables["verdicts"], subject=control)["learner"].str.contains("td0").all()
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
    frame = inside(construction(), held_out(SUBJECTS), "td0", [0])["lesions"]
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 2 * 18
