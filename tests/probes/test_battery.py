"""The answers that the algebra of each learner gives on the constructed contexts, one theorem per test."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.acting_bank import BANDIT, CONTROL, acting_learner
from probes.battery import BANDIT_TESTS, CONTROL_TESTS, Test, answers, remembered, walks

EXACT: dict[str, Any] = {"temperature": 1.0, "lapse": 0.0}
ORDERLESS = ["empirical-mean", "posterior-mean", "ucb", "ucb1", "lcb", "thompson", "gaussian-thompson"]
ORDERED = ["gradient-bandit", "exp3", "constant-step", "forgetting", "discounted-ucb"]
ONE_STEP = ["sarsa", "expected-sarsa", "q-learning"]


def double(test: Test) -> Test:
    def exact(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    return replace(test, contexts={name: context.each(exact) for name, context in test.contexts.items()})


def read(name: str, test: str, key: str = "index", **constants: Any) -> dict[str, list[float]]:
    """What the named learner has remembered under `key` after each context of a bandit test."""
    states = remembered(acting_learner(name, constants), double(BANDIT_TESTS[test]))
    return {context: state[key][0, 0].tolist() for context, state in states.items()}


def q(learner: ActingLearner, test: str) -> dict[str, Tensor]:
    """Action values [states, actions] after each context of a control test."""
    return {name: state["q"][0, 0] for name, state in remembered(learner, double(CONTROL_TESTS[test])).items()}


def log_odds(name: str, test: str, first: int = 0, second: int = 1, **constants: Any) -> dict[str, float]:
    """ln pi(first) - ln pi(second) in every context."""
    asked = BANDIT_TESTS[test] if test in BANDIT_TESTS else CONTROL_TESTS[test]
    laws = answers(acting_learner(name, constants), double(asked))
    return {context: (law[0, 0, first] / law[0, 0, second]).log().item() for context, law in laws.items()}


@pytest.mark.parametrize("name", [*ORDERLESS, *ORDERED])
def test_a_order(name: str) -> None:
    odds = log_odds(name, "A")
    assert (odds["given"] == pytest.approx(odds["reversed"], abs=1e-10)) == (name in ORDERLESS)


@pytest.mark.parametrize(
    ("name", "constants", "rising", "falling"),
    [
        ("empirical-mean", {}, 0.5, 0.5),
        ("posterior-mean", {}, 0.5, 0.5),
        ("constant-step", {"step_size": 0.3, "initial": 0.5}, 0.716, 0.284),
        ("constant-step", {"step_size": 0.1, "initial": 0.5}, 0.537, 0.463),
    ],
)
def test_b_recency(name: str, constants: dict[str, float], rising: float, falling: float) -> None:
    index = read(name, "B", **constants)
    assert index["rising"][0] == pytest.approx(rising + 0.5**6 * 0 if "step_size" not in constants else rising, abs=5e-2)
    assert index["falling"][0] == pytest.approx(falling, abs=5e-2)
