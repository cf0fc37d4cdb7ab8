"""Two networks side by side: rivals meet by what they do with a reward, and each folder is read by what fits it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms import acting_bank, bank
from analyses import compare as module
from analyses.compare import KINDS, OTHER, card, compare, kind_of, nearest, own_task, render, rows, shared
from figures.compare import draw
from learnscope import main
from models.constructions import td0
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig

Failure = Callable[[list[str]], str]


def report(task: str, learners: list[str], **left: float | None) -> dict[str, Any]:
    """What is read of an inspection's report."""
    rivals = {
        name.replace("_", "-"): {"disagreement": value, "low": value, "high": value, "diverged": 0.0}
        for name, value in left.items()
    }
    subject = {"model": "policy-transformer", "n_layers": 2, "seeds": 3}
    outcome = "identified" if learners else "none"
    verdict = {"outcome": outcome, "learners": learners}
    return {"subject": subject, "task": task, "rivals": rivals, "verdict": verdict, "seeds": [{"rivals": rivals}] * 3}


VALUES = report("boyan-chain", ["td0"], td0=0.001, lstd=0.2, myopic=0.5, zero=1.0)
POLICY = report("ring", ["sarsa"], sarsa=0.01, certainty_equivalence=0.3, monte_carlo_control=None)
NAMELESS = report("ring", [], sarsa=0.4, q_learning=0.3)


def test_every_reinforcement_learner_is_of_one_kind() -> None:
    names = [name for kind in KINDS.values() for name in kind]
    assert len(names) == len(set(names))
    assert set(names) <= {*bank.LEARNERS, *acting_bank.ACTING}
    others = {name for name in {*bank.RIVALS, *acting_bank.CONTROL} if kind_of(name) == OTHER}
    assert others == {"zero", "random"}


def test_rivals_stand_by_kind_and_null_where_they_were_not_asked() -> None:
    found = rows([VALUES, POLICY])
    assert [row["learner"] for row in found] == [
        "td0", "sarsa", "lstd", "certainty-equivalence", "monte-carlo-control", "myopic", "zero",
    ]  # fmt: skip
    assert found[0]["leaves"] == [{"value": 0.001, "low": 0.001, "high": 0.001}, None]
    assert nearest(POLICY) == "sarsa"


def test_answers_of_one_kind_of_different_kinds_and_none() -> None:
    assert shared([VALUES, POLICY])["same_kind"] is True
    assert shared([VALUES, report("ring", ["ucb-vi"], ucb_vi=0.001)])["same_kind"] is False
    assert shared([VALUES, NAMELESS])["same_kind"] is None
    assert shared([VALUES, NAMELESS])["nearest"] == ["td0", "q-learning"]
    assert shared([POLICY, POLICY])["fit_both"] == ["sarsa"]


def comparison(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    networks = [{"folder": name, "report": each} for name, each in (("a", first), ("b", second))]
    return {"networks": networks, "rivals": rows([first, second]), "shared": shared([first, second])}


def test_it_is_told_in_two_columns() -> None:
    text = render(comparison(VALUES, POLICY))
    assert "Both answers are of one kind: bootstraps step by step." in text
    assert "asked on different tasks" in text
    line = next(line for line in text.splitlines() if line.startswith("  td0"))
    assert line.split() == ["td0", "0.001", "(0.001", "to", "0.001)", "*", "-"]
    assert "No learner is named for the second. The nearest rivals are td0" in render(comparison(VALUES, NAMELESS))
    different = comparison(VALUES, report("boyan-chain", ["lstd"], lstd=0.001))
    assert "different kinds: bootstraps step by step, against solves a model." in render(different)


def test_it_is_drawn() -> None:
    tables = card(comparison(VALUES, POLICY)["networks"])
    assert tables["rivals"]["named"].sum() == 2
    assert tables["rivals"]["value"].isna().sum() == 1
    assert len(tables["seeds"]) == 3 * len(tables["rivals"])
    assert len(draw(tables).axes) == 2


def test_a_policy_alone_is_one_panel() -> None:
    tables = card([{"folder": "a", "report": POLICY}])
    assert set(tables["rivals"]["learner"]) == {"sarsa", "certainty-equivalence", "monte-carlo-control"}
    assert len(draw(tables).axes) == 1


def folders(tmp_path: Path) -> list[Path]:
    td0(2.0 * torch.eye(4).expand(1, 1, 4, 4), n_layers=3).save_pretrained(tmp_path / "values")
    config = PolicyConfig(n_observations=7, n_actions=2, n_ctx=10, d_model=8, n_layers=1, n_heads=1, d_mlp=8)
    PolicyTransformer(config, initial_weights(config, [0])).save_pretrained(tmp_path / "policy")
    return [tmp_path / "values", tmp_path / "policy"]


def test_each_folder_is_read_by_what_fits_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values, policy = folders(tmp_path)
    assert own_task(values) == "boyan-chain"
    assert own_task(policy) == "ring"
    told = capsys.readouterr()
    assert told.out == ""
    also = "chain, dense, arrival-ring would fit, too; choose with --tasks, one for each folder"
    assert f"{policy} is asked on ring: {also}" in told.err
    monkeypatch.setattr(module.values, "inspect", lambda folder, task: VALUES | {"task": task})
    monkeypatch.setattr(module.policies, "inspect_policy", lambda folder, task: POLICY | {"task": task})
    found = compare([values, policy], [None, None])
    assert [network["report"]["task"] for network in found["networks"]] == ["boyan-chain", "ring"]
    assert main(["compare", str(values), str(policy), "--tasks", "loop", "ring", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [network["report"]["task"] for network in told["networks"]] == ["loop", "ring"]


def test_what_cannot_be_compared_gets_one_line(failure: Failure, tmp_path: Path) -> None:
    values, policy = map(str, folders(tmp_path))
    assert "there is no folder" in failure(["compare", values, str(tmp_path / "nowhere")])
    assert "holds a policy-transformer" in failure(["compare", policy, values, "--tasks", "loop", "loop"])
    assert "no tree has" in failure(["compare", policy, values, "--tasks", "tree", "loop"])
    assert "did you mean 'ring'?" in failure(["compare", policy, values, "--tasks", "rng", "loop"])
    assert "Hint: learnscope compare --help" in failure(["compare", policy])
