"""The zoo of decision problems: what is taught where, contexts apart from one another, and the tables that say so."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import algorithms.fit_laws
import analyses.parallel
from algorithms.acting import follow
from algorithms.acting_bank import acting_learner
from analyses.algorithm_zoo import CONTROLS, COUNTED, JUDGEMENTS, OTHERS, REJECTED, SEPARATE, SHARP, UNTRAINED
from analyses.configs import ANALYSES, ControlSettings, ControlZoo
from analyses.control_subjects import control_subjects
from analyses.control_zoo import (
    ALL,
    EXACT,
    LEARNERS,
    OWN_WALKS,
    SEED,
    SOURCE,
    by_kind,
    exactly,
    fitted_to,
    grouped,
    questions,
    references,
    run,
    subjects,
    summarise,
    taught,
)
from analyses.inspect_policy import CONTEXTS
from analyses.policy_questions import CONTROL_RIVALS
from analyses.tables import select, tidy
from figures import control_zoo
from models.policy_sources import Distillation, Following, ShuffledRewards
from tasks.errors import ConfigError

SMOKE: ControlZoo = ANALYSES["control-zoo"].preset("smoke")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        patch.setattr(algorithms.fit_laws, "MAX_STEPS", 3)  # how well rivals are fitted is another test's
        return run(replace(SMOKE, out=tmp_path_factory.mktemp("runs")))


def test_rivals_are_those_of_inspect_and_every_source_is_one_of_them() -> None:
    config = ControlZoo()
    assert config.contexts == CONTEXTS
    assert {*ANALYSES["control-zoo"].preset("paper").rivals} == {*CONTROL_RIVALS} == {*taught()}
    assert {*CONTROL_RIVALS} - {*config.rivals} == {"posterior-sampling"}
    assert {*config.sources} <= {*config.rivals}
    assert {*config.own_walks, *config.shuffled} <= {*config.sources}
    for name, learner in taught().items():
        assert type(learner) is type(acting_learner(name))


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_what_other_analyses_have_trained_is_not_trained_again(preset: str) -> None:
    made = subjects(ANALYSES["control-zoo"].preset(preset))
    names = (
        "q-learning on random walks",
        "certainty-equivalence on random walks",
        "successor-representation on random walks",
        "distilled from q-learning",
        "distilled from certainty-equivalence",
        "distilled from successor-representation",
    )
    settings: ControlSettings = replace(ANALYSES["control-battery"].preset(preset), objectives=names)
    others = control_subjects(settings)
    assert {name: made[name].folder for name in names} == {name: each.folder for name, each in others.items()}


def test_every_policy_is_taught_its_source_and_controls_have_none() -> None:
    made = subjects(ControlZoo())
    assert len({subject.folder for subject in made.values()}) == len(made)
    for name, subject in made.items():
        if isinstance(subject.source, ShuffledRewards):
            assert name not in LEARNERS
            continue
        assert isinstance(subject.source, Distillation if name.startswith("distilled") else Following)
        assert subject.source.learner == taught()[LEARNERS[name]]


def test_policies_are_asked_other_contexts_than_those_that_tell_sources_apart() -> None:
    asked, before = questions(replace(SMOKE, contexts=5, separation_contexts=6))
    assert (asked.history.batch, before.history.batch) == ((1, 20), (1, 24))
    assert (fitted_to(asked), fitted_to(before)) == (8, 12)
    seen = {tuple(x.tolist()) for x in torch.cat([asked.history.observation, asked.history.action], -1)[0]}
    others = {tuple(x.tolist()) for x in torch.cat([before.history.observation, before.history.action], -1)[0]}
    assert not seen & others


def test_groups_follow_what_policies_were_taught_and_where() -> None:
    names = ["q-learning", "policy-gradient"]
    lows = [[0.0, SEPARATE], [SEPARATE / 2, 0.0]]
    apart = tidy(np.array(lows) + 0.1, {"subject": names, "learner": names}, low=lows, metric="kl")
    assert grouped(SMOKE, apart) == {
        "q-learning on random walks": COUNTED,
        "policy-gradient on random walks": OTHERS,
        "distilled from q-learning": OWN_WALKS,
        "q-learning, exact law": EXACT,
        "policy-gradient, exact law": EXACT,
    }


def test_medians_and_means_are_over_contexts_of_one_kind() -> None:
    """Contexts of two kinds take turns."""
    left = torch.tensor([[[0.0, 10.0, 0.0, 20.0, 3.0, 60.0]]]).double()
    rows = by_kind({"q-learning": left[0]}, ["uniform", "moved"], [("sarsa on random walks", 4)])
    assert (set(rows["subject"]), set(rows["seed"])) == ({"sarsa on random walks"}, {4})
    table = rows.set_index(["metric", "target"])["value"]
    assert table["median"].to_dict() == {ALL: 6.5, "uniform": 0.0, "moved": 20.0}
    assert table["mean"].to_dict() == pytest.approx({ALL: 15.5, "uniform": 1.0, "moved": 30.0})


def test_a_policy_that_is_its_source_leaves_nothing_of_it_and_as_much_as_another_seed_differs() -> None:
    asked, _ = questions(SMOKE)
    source = taught()["q-learning"]
    law = follow(source, asked.history).laws.clone()
    even = torch.full_like(law, 0.5)
    found = references(torch.cat([law, even]), torch.ones(2).double(), source, asked)
    assert found[SOURCE][0].abs().max() < 1e-10
    torch.testing.assert_close(found[SOURCE][1], found[SEED][1])
    assert found[SEED].mean() > 0.05
    assert {*references(law, torch.ones(1).double(), None, asked)} == set()


def test_tables_hold_every_policy_once(tables: Mapping[str, pd.DataFrame]) -> None:
    networks, left = tables["networks"], tables["unexplained"]
    assert len(select(tables["separation"], metric="kl")) == len(SMOKE.sources) * len(SMOKE.rivals)
    made = [*subjects(SMOKE), UNTRAINED, SHARP]
    counts = dict.fromkeys(made, 2) | dict.fromkeys(map(exactly, SMOKE.sources), 1)
    assert networks["subject"].value_counts().to_dict() == counts
    assert set(networks["judged"]) <= {*JUDGEMENTS, REJECTED}
    assert set(select(networks, target=CONTROLS)["subject"]) == {"q-learning, shuffled", UNTRAINED, SHARP}
    assert len(select(tables["laws"], metric="rival")) == len(networks) * len(SMOKE.rivals)
    own = select(tables["laws"], own=True)
    assert (own["learner"] == own["subject"].map(LEARNERS)).all()
    assert set(left["target"]) == {ALL, "uniform", "skewed", "moved", "exploiting"}
    assert set(select(left, learner=SOURCE)["subject"]) == {*subjects(SMOKE)} - {"q-learning, shuffled"}
    n_left = len(networks) * len(SMOKE.rivals) + 2 * len(made) + 2 * 3  # by rivals, other seeds, sources
    assert len(left) == n_left * 5 * 2


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert all(name in said for name in subjects(SMOKE))
    assert isinstance(control_zoo.draw(tables), Figure)


def test_settings_without_an_answer_are_refused_before_training() -> None:
    for changed in ({"sources": ()}, {"rivals": ("q-learning",)}, {"contexts": 1}, {"shuffled": ("q-learner",)}):
        with pytest.raises(ConfigError):
            run(replace(SMOKE, **changed))
