"""Findings level by level: what the construction shows at every one, and what other networks cannot be asked."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import analyses.evidence
import analyses.inspect
import probes.interventions
from algorithms.bank import LEARNERS, RIVALS
from analyses.answer import render
from analyses.evidence import MISSED, card
from analyses.inspect import inspect, report
from figures import evidence_card
from figures.save import save_figure
from models import constructions
from models.config import LinearTransformerConfig, RecurrentConfig, ValueTransformerConfig
from models.networks import build, initial_weights

D = 3
FEW: dict[str, Any] = {"fitting_tasks": 30, "held_out_tasks": 30, "context_length": 20}
ALPHA = 1.2 * torch.eye(D, dtype=torch.float64)[None, None]


@pytest.fixture(scope="module", autouse=True)
def few_tasks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.evidence, "LAYER_TASKS", 20)
        patch.setattr(analyses.evidence, "CAUSAL_TASKS", 20)
        patch.setattr(probes.interventions, "N_PLACEBOS", 2)
        patch.setattr(analyses.inspect, "report", partial(report, fitting_tasks=30, held_out_tasks=30))
        yield


@pytest.fixture(scope="module")
def told(few_tasks):
    """With the prompts of the planted benchmark: d = 4, 30 transitions."""
    alpha = 1.2 * torch.eye(4, dtype=torch.float64)[None, None]
    network = constructions.td0(alpha, n_layers=3, gamma_eff=0.8)
    return report(network, "boyan-chain", fitting_tasks=30, held_out_tasks=30)


def by_test(told, level):
    return {f["test"]: f for f in told["seeds"][0]["findings"] if f["level"] == level and f["statistic"] != MISSED}


def test_the_report(tmp_path):
    """The keys and shapes that others rely on, from a folder and back through JSON."""
    model = constructions.td0(torch.cat([ALPHA, 0.5 * ALPHA]).expand(-1, 3, -1, -1), n_layers=3)
    model.save_pretrained(tmp_path)
    told = inspect(tmp_path, "loop")
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert list(told) == [
        "subject", "task", "weights", "rivals", "rival_distances", "seed_disagreement", "searches", "verdict", "seeds",
    ]  # fmt: skip
    assert (told["verdict"]["outcome"], told["verdict"]["learners"]) == ("identified", ["td0"])
    assert told["verdict"]["confidence"] is None, "an ensemble has none: its seeds have"
    assert torch.tensor(told["weights"]["alpha_eff"]).shape == (2, 3)
    assert set(told["rivals"]["td0"]) == {
        "constants", "n_constants", "at_bound", "disagreement", "low", "high", "diverged",
    }  # fmt: skip
    assert told["rivals"]["td0"]["disagreement"] < 1e-8 < told["rivals"]["myopic"]["low"]
    assert told["rivals"]["td0"]["n_constants"] == 4
    assert told["rivals"]["td0"]["diverged"] == 0
    assert told["rival_distances"]["td0"]["myopic"] > 0.01
    first = told["seeds"][0]
    assert first["outcome"] == "identified"
    assert first["confidence"] is None, "the planted benchmark has Boyan chains alone"
    assert [asked["family"]["name"] for asked in first["prompts"]] == ["own prompts"]
    levels = [finding["level"] for finding in first["findings"]]
    assert sorted(set(levels), key=levels.index) == ["behavioural", "representational", "parametric", "causal"]
    for finding in (finding for finding in first["findings"] if finding["seen"]):  # made on this network
        assert finding["seen"]["td0"]["value"] == pytest.approx(finding["expected"], abs=1e-6), finding["test"]
    text = render(told)
    assert "identified: td0" in text
    assert "myopic" in text


def test_every_level_speaks_for_the_construction_and_against_a_myopic_learner(told):
    (read,) = by_test(told, "representational").values()
    assert read["seen"]["td0"]["value"] < 1e-10
    assert "average-reward-td" in read["excluded"]
    assert read["seen"]["myopic"]["low"] > 1e-3
    assert "lstd" not in read["seen"], "it has no iterates"
    (weights,) = by_test(told, "parametric").values()
    assert weights["seen"]["td0"]["value"] < 1e-12 < weights["seen"]["myopic"]["value"]
    assert "alpha 1.2, gamma 0.8" in weights["note"]
    causal = by_test(told, "causal")
    for test in ("bootstrap lesion", "discount × 0.5", "TD-error swap at 1", "erasure at 1", "loops × 2"):
        assert causal[test]["seen"]["td0"]["value"] == pytest.approx(1, abs=1e-6)
        assert "td0" not in causal[test]["excluded"]
    assert {"myopic", "monte-carlo"} <= set(causal["bootstrap lesion"]["excluded"])
    assert not by_test(told, "causal")["random erasure at 1"]["excluded"], "a control speaks against nobody"


def test_confidence_is_that_of_like_answers_on_the_planted_benchmark(told):
    said = told["verdict"]["confidence"]
    assert said["low"] > 0.9
    assert f"of {said['n']} planted networks with such an answer" in render(told)


def test_no_confidence_is_carried_over_to_other_prompts():
    network = constructions.td0(ALPHA, n_layers=2)
    elsewhere = report(network, "loop", **FEW)
    assert elsewhere["verdict"]["outcome"] == "identified"
    assert elsewhere["verdict"]["confidence"] is None
    assert "Confidence: not counted" in render(elsewhere)


def test_the_card_is_drawn_from_its_tables(told, tmp_path):
    tables = card(json.loads(json.dumps(told)))
    assert len(tables["answers"]) == 1
    assert set(tables["findings"]["learner"]) <= set(LEARNERS)
    assert all(path.exists() for path in save_figure(evidence_card.draw, tables, tmp_path, "card"))


def test_several_seeds_share_a_card():
    network = constructions.td0(ALPHA * torch.tensor([1.0, 0.5]).double()[:, None, None, None], n_layers=2)
    told = report(network, "boyan-chain", **FEW)
    tables = card(told)
    assert len(tables["answers"]) == 2
    assert "2 of 2 seeds" in evidence_card.draw(tables).get_suptitle()
    assert told["verdict"]["confidence"] is None
    assert "The evidence differs by seed" in render(told)


@pytest.mark.parametrize(
    "config",
    [
        ValueTransformerConfig(n_layers=2, d_features=D),
        RecurrentConfig(n_layers=2, d_features=D),
        LinearTransformerConfig(2, False, D, activation="softmax-over-queries"),
        LinearTransformerConfig(1, True, D),
    ],
    ids=lambda config: type(config).__name__,
)
def test_networks_of_every_kind_can_be_inspected(config):
    weights = {name: 10 * weight for name, weight in initial_weights(config, [0]).items()}
    told = report(build(config, weights), "boyan-chain", **FEW)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["verdict"]["outcome"] in ("none", "identified")
    assert "Answer: " in render(told)
    assert set(card(told)) == {"answers", "findings"}


def test_softmax_td_is_asked_for(told):
    assert "softmax-td" not in told["rivals"]
    weights = initial_weights(LinearTransformerConfig(2, True, D, activation="softmax"), [0])
    network = build(LinearTransformerConfig(2, True, D, activation="softmax"), weights)
    assert "softmax-td" in report(network, "boyan-chain", **FEW, rivals=(*RIVALS, "softmax-td"))["rivals"]


def test_cartpole_is_asked_on_its_own_tasks():
    told = report(constructions.td0(ALPHA, n_layers=2), "cartpole", **FEW)
    assert told["rivals"]["td0"]["disagreement"] < 1e-10


def texts(tables):
    return [text.get_text() for axes in evidence_card.draw(tables).get_axes() for text in axes.texts]


def test_a_test_that_cannot_be_made_says_why():
    config = RecurrentConfig(n_layers=2, d_features=D)
    findings = card(report(build(config, initial_weights(config, [0])), "boyan-chain", **FEW))["findings"]
    for test in ("read-outs of the inner layers", "weights against constructions", "bootstrap lesion"):
        (row,) = findings[findings["target"] == test].to_dict("records")
        assert (row["learner"], row["note"]) == ("", "needs merged weights P and Q")
        assert np.isnan(row["value"])
    one = card(report(constructions.td0(ALPHA, n_layers=1), "boyan-chain", **FEW))
    assert "does not apply:\none layer has no inner ones" in texts(one)


def test_what_lies_beyond_an_axis_is_an_arrow_with_its_number(told):
    tables = card(told)
    findings = tables["findings"]
    assert "7.5" not in texts(tables)
    far = (findings["target"] == "stitching") & (findings["learner"] == "td0")
    findings.loc[far, ["value", "low", "high"]] = 7.5, 7.4, 7.6
    assert "7.5" in texts(tables)
