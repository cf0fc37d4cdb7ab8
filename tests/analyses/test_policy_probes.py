"""Policies probed: the rule of the verdict, planted policies that use or ignore what they hold, then the whole."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.figure import Figure

import analyses.parallel
import analyses.swaps
from analyses.configs import ANALYSES, PolicyProbes
from analyses.in_context_improvement import subjects as bandit_subjects
from analyses.policy_probes import PAIRS, REFERENCES, answers, bandit_increments, run, summarise
from analyses.probe_questions import FEWEST, bandit_settings, pairs, planned_choice, steps
from analyses.tables import select
from figures import policy_probes
from models.networks import initial_weights
from models.policy import PolicyTransformer
from probes.carried_and_used import ABSENT, DECODABLE, IDLE, IN_USE, UNTOLD, USED, best, verdict
from probes.policy_targets import BANDIT_QUANTITIES

SMOKE: PolicyProbes = ANALYSES["policy-probes"].preset("smoke")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        patch.setattr(analyses.swaps, "N_RANDOM", 3)
        return run(replace(SMOKE, bandits=False, out=tmp_path_factory.mktemp("runs")))


def layer(**changed: float) -> pd.DataFrame:
    """One at which a quantity is carried and used."""
    numbers = {"carried": 0.5, "value": 0.5, "low": 0.4, "high": 0.6, "farthest": 0.2, "room": 0.8}
    return pd.DataFrame([numbers | changed], index=[1])


def test_the_verdict_asks_for_more_than_controls_then_for_use() -> None:
    assert verdict(layer()) == IN_USE
    assert verdict(layer(carried=DECODABLE / 2)) == ABSENT
    assert verdict(layer(farthest=0.6)) == verdict(layer(low=-0.1)) == UNTOLD, "half of the way is no sign of no use"
    idle = {"value": 0.01, "low": -0.02, "high": USED / 2}
    assert verdict(layer(**idle)) == IDLE
    assert verdict(layer(**idle, room=USED / 2)) == UNTOLD


def test_what_is_carried_at_one_layer_and_moves_logits_at_another_is_not_used() -> None:
    idle = layer(value=0.01, low=-0.02, high=USED / 2)
    assert verdict(pd.concat([idle, layer(carried=0.0)])) == IDLE
    assert verdict(pd.concat([idle, layer()])) == IN_USE


def test_the_best_layer_is_the_surest_one_that_carries_it() -> None:
    rows = pd.concat([layer(low=0.1), layer(low=0.2), layer(carried=0.0, low=0.3)])
    assert best(rows.set_axis([1, 2, 3])) == 2


def test_policies_are_asked_at_quarters_and_last() -> None:
    assert steps(40) == [9, 19, 29, 39]
    assert steps(4) == [1, 2, 3]


def test_tables_hold_every_control_and_an_answer_per_objective(tables: Mapping[str, pd.DataFrame]) -> None:
    assert {*tables} == {"ability", "increments", "interchange", "answers"}
    subjects = set(tables["increments"]["subject"])
    assert subjects == set(SMOKE.objectives)
    increments = tables["increments"].set_index("metric")["value"].groupby("metric").size()
    assert set(increments.index) == {"base", "increment", "untrained", "beyond untrained", "shuffled", "random"}
    assert increments.nunique() == 1
    answers = select(tables["answers"], metric="used")
    assert len(answers) == len(subjects) * SMOKE.seeds * sum(map(len, PAIRS.values()))
    late = select(tables["ability"], metric="late").set_index("subject")["value"]
    assert late["planner"].item() > late["myopic"].item()
    assert {*REFERENCES} < {*late.index}


def test_untaught_policies_are_credited_with_nothing(tables: Mapping[str, pd.DataFrame]) -> None:
    """After three steps of training a policy carries what an untrained one does."""
    assert set(select(tables["answers"], metric="used")["verdict"]) == {ABSENT}
    whole = select(tables["interchange"], target="everything", metric="way", layer=SMOKE.n_layers)
    assert whole["value"].to_numpy() == pytest.approx(1.0, abs=1e-4)
    nothing = select(tables["interchange"], target="memory", metric="way", layer=SMOKE.n_layers)
    assert nothing["value"].to_numpy() == pytest.approx(0.0, abs=1e-4)


def test_a_quantity_that_adds_no_more_than_those_of_other_tasks_is_not_carried(
    tables: Mapping[str, pd.DataFrame],
) -> None:
    rows = tables["increments"]
    carried = rows.assign(
        **{end: rows[end].mask(rows["metric"] == "beyond untrained", 0.5) for end in ("value", "low")}
    )
    assert ABSENT not in set(select(answers({**tables, "increments": carried}), metric="used")["verdict"])
    for control in ("shuffled", "random"):
        as_much = carried.assign(high=carried["high"].mask(carried["metric"] == control, 0.6))
        found = answers({**tables, "increments": as_much})
        assert set(select(found, metric="used")["verdict"]) == {ABSENT}


def test_contexts_of_a_pair_have_the_planner_choose_otherwise() -> None:
    found = pairs(SMOKE)
    assert {*found} == {*PAIRS}
    for a, b, choices in found.values():
        assert a.batch[1] >= FEWEST
        assert (planned_choice(a) != planned_choice(b)).all()
        assert (choices[0] != choices[1]).all()


def test_an_untrained_bandit_policy_adds_nothing_to_itself() -> None:
    """It is its own control; and counts, sums and means alone say most of the posterior mean."""
    subject = bandit_subjects(bandit_settings(SMOKE))["distilled"]
    policy = PolicyTransformer(subject.config, initial_weights(subject.config, [0]))
    rows = bandit_increments(policy, [0], SMOKE)
    assert set(rows["target"]) == {*BANDIT_QUANTITIES}
    assert (select(rows, metric="beyond untrained")["value"] == 0).all()
    base = select(rows, metric="base", layer=0).set_index("target")["value"]
    assert base["posterior mean"] > 0.85


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert "distilled from q-learning" in said
    assert isinstance(policy_probes.draw(tables), Figure)
