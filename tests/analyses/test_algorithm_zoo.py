"""The algorithm zoo: sources are apart as the table says, judgements follow the names, intervals are over sources."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import analyses.parallel
from algorithms.acting import follow
from algorithms.acting_bank import ACTING
from analyses.algorithm_zoo import (
    CONTROLS,
    COUNTED,
    JUDGEMENTS,
    OTHERS,
    REJECTED,
    SEPARATE,
    SHARP,
    SHUFFLED,
    UNTRAINED,
    ZOO,
    clustered,
    contexts,
    groups,
    judgement,
    lost,
    nearest,
    rates,
    run,
    separation,
    source,
    summarise,
    untrained,
)
from analyses.configs import ANALYSES, AlgorithmZoo
from analyses.policy_questions import BANDIT_RIVALS
from analyses.policy_subjects import bandit_network
from analyses.tables import select, tidy
from figures import algorithm_zoo
from probes.verdict import Verdict

SMOKE: AlgorithmZoo = ANALYSES["algorithm-zoo"].preset("smoke")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(replace(SMOKE, out=tmp_path_factory.mktemp("runs")))


def test_rivals_are_those_of_inspect_and_sources_left_out_are_within_another_one() -> None:
    config = AlgorithmZoo()
    left_out = {ZOO[name][0] for name in ZOO.keys() - set(config.sources)}
    assert left_out == {"win-stay-lose-shift", "empirical-mean", "ucb", "ucb1", "constant-step"}
    assert set(config.rivals) == set(BANDIT_RIVALS)
    assert {learner for learner, _ in ZOO.values()} == set(config.rivals)
    assert set(SHUFFLED) <= set(ZOO)
    for learner, constants in ZOO.values():
        made = ACTING[learner](**constants)
        assert all(getattr(made, name) == value for name, value in constants.items())


def test_a_source_is_at_no_distance_from_its_own_family_and_from_those_that_contain_it() -> None:
    found = separation(replace(SMOKE, rivals=(*SMOKE.rivals, "ucb")))
    apart = found.set_index(["subject", "learner"])["value"]
    assert abs(apart["win-stay-lose-shift", "win-stay-lose-shift"]) < 1e-5
    assert abs(apart["empirical-mean", "empirical-mean"]) < 1e-5
    assert abs(apart["empirical-mean", "ucb"]) < 1e-4
    assert apart["win-stay-lose-shift", "empirical-mean"] > SEPARATE
    assert groups(found) == {"empirical-mean": OTHERS, "win-stay-lose-shift": COUNTED}


def test_a_source_counts_from_a_distance_on_that_its_own_family_has_no_part_in() -> None:
    kls = [[0.0, 0.03, 0.5], [0.02, 0.0, SEPARATE], [0.3, 0.019, 0.0]]
    names = ["ucb", "exp3", "lcb"]
    place = {"subject": ["ucb", "slow-exp3", "lcb"], "learner": names}
    apart = tidy(np.array(kls) + 0.1, place, low=kls, metric="kl")
    assert groups(apart) == {"ucb": COUNTED, "slow-exp3": COUNTED, "lcb": OTHERS}
    assert nearest(apart)["learner"].tolist() == ["exp3", "ucb", "exp3"]


def test_kinds_of_one_learner_are_no_independent_trials() -> None:
    rows = {"subject": ["exp3"] * 2 + ["slow-exp3"] * 2 + ["lcb"], "judged": ["assigned"] * 2 + ["wrong"] * 3}
    table = rates(pd.DataFrame(rows).assign(target=COUNTED)).set_index("metric")
    assert table.loc["assigned", "value"] == pytest.approx((0.5 + 0) / 2)


@pytest.mark.parametrize(
    ("name", "outcome", "learners", "expected"),
    [
        ("ucb", "identified", ("ucb",), "assigned"),
        ("slow-exp3", "identified", ("exp3",), "assigned"),
        ("ucb", "ambiguous", ("ucb", "ucb1"), "ambiguous"),
        ("ucb", "ambiguous", ("lcb", "ucb1"), "wrong"),
        ("ucb", "identified", ("ucb1",), "wrong"),
        ("ucb", "none", (), "missed"),
        (UNTRAINED, "none", (), "rejected"),
        (UNTRAINED, "identified", ("ucb",), "wrong"),
    ],
)
def test_judgements(name: str, outcome, learners: tuple[str, ...], expected: str) -> None:
    assert judgement(name, Verdict(outcome, learners, "")) == expected


def test_policies_that_diverged_are_missed() -> None:
    kept = {"ucb": (None, [0, 2]), "exp3": (None, [0, 1, 2]), "exp3, shuffled": (None, [1, 2])}
    rows = pd.concat(lost(kept, 3, {"ucb": COUNTED, "exp3": COUNTED}))
    found = list(rows[["subject", "seed", "target", "judged"]].itertuples(index=False, name=None))
    assert found == [("ucb", 1, COUNTED, "missed"), ("exp3, shuffled", 0, CONTROLS, "missed")]
    assert lost({"exp3": kept["exp3"]}, 3, {}) == []


def test_intervals_are_over_sources() -> None:
    """Two policies of three sources each: nearly sd / sqrt(n) wide where they differ; certain only in number."""
    shares = np.repeat([0.0, 1.0, 0.5, 1.0], 25)
    found = clustered(shares)
    assert found.value == pytest.approx(0.625)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * shares.std() / 10, rel=0.1)
    whole = clustered(np.ones(12))
    assert (whole.value, whole.high) == (1.0, 1.0)
    assert whole.low == pytest.approx(0.025 ** (1 / 12))  # the exact interval of 12 of 12
    rows = {"subject": ["ucb"] * 4 + ["lcb"] * 2, "judged": ["assigned"] * 3 + ["wrong"] + ["assigned"] * 2}
    table = rates(pd.DataFrame(rows).assign(target=COUNTED)).set_index("metric")
    assert table.loc["assigned", "value"] == pytest.approx((0.75 + 1) / 2)
    assert table.loc["wrong", "value"] == pytest.approx(0.125)


def test_untrained_policies_hardly_read_their_context_unless_made_sharp() -> None:
    history, made = contexts(SMOKE, 4, "test")[0], untrained(bandit_network(SMOKE), SMOKE.seeds)
    spread = {name: policy.double().laws(history).std((1, 2)).mean() for name, (policy, _) in made.items()}
    assert spread[SHARP] > 5 * spread[UNTRAINED]


def test_tables_hold_every_policy_once(tables: Mapping[str, pd.DataFrame]) -> None:
    networks, laws = tables["networks"], tables["laws"]
    assert networks["subject"].value_counts().to_dict() == dict.fromkeys((*SMOKE.sources, UNTRAINED, SHARP), 2)
    assert set(networks["judged"]) <= {*JUDGEMENTS, REJECTED}
    assert set(select(networks, target=CONTROLS)["judged"]) == {REJECTED}
    assert set(select(networks, target=CONTROLS)["subject"]) == {UNTRAINED, SHARP}
    assert len(select(laws, metric="rival")) == len(networks) * len(SMOKE.rivals)
    assert select(laws, metric="rival")["value"].min() > 0
    assert select(laws, metric="source", subject="empirical-mean")["value"].notna().all()
    own = select(laws, own=True)
    assert (own["learner"] == own["subject"]).all()
    assert len(own) == 2 * len(SMOKE.sources)


def test_a_source_is_the_learner_at_the_zoos_constants() -> None:
    history = contexts(SMOKE, 4, "test")[0]
    stay, shift = 0.8, 0.6
    law = follow(source(SMOKE, "win-stay-lose-shift"), history).laws
    again = law[0, 0, 1, history.action[0, 0, 0]]
    assert float(again) == pytest.approx(stay if history.reward[0, 0, 0] else 1 - shift)
    torch.testing.assert_close(law[:, :, 0], torch.full_like(law[:, :, 0], 1 / 3))


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert "win-stay-lose-shift" in said
    assert said.count("nats of its source") == 2
    assert isinstance(algorithm_zoo.draw(tables), Figure)
