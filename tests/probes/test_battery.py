"""The answers that the algebra of each learner gives on the constructed contexts, one theorem per test."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.acting_bank import acting_learner
from probes.battery import BANDIT_TESTS, CONTROL_TESTS, Test, answers, remembered

ORDERLESS = ["empirical-mean", "posterior-mean", "ucb", "ucb1", "lcb", "thompson", "gaussian-thompson", "gittins"]
ORDERED = ["gradient-bandit", "exp3", "constant-step", "forgetting", "discounted-ucb"]
ONE_STEP = ["sarsa", "expected-sarsa", "q-learning"]


def double(test: Test) -> Test:
    def exact(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    return replace(test, contexts={name: context.each(exact) for name, context in test.contexts.items()})


def index(name: str, test: str, **constants: Any) -> dict[str, list[float]]:
    """The index of every arm after each context of a bandit test."""
    states = remembered(acting_learner(name, constants), double(BANDIT_TESTS[test]))
    return {context: state["index"][0, 0].tolist() for context, state in states.items()}


def table(name: str, test: str, key: str = "q", *, sweeps: int | None = None, **constants: Any) -> dict[str, Tensor]:
    """Values or preferences [states, actions] after each context of a control test."""
    settings = {} if sweeps is None else {"n_sweeps": sweeps}
    states = remembered(acting_learner(name, constants, **settings), double(CONTROL_TESTS[test]))
    return {context: state[key][0, 0] for context, state in states.items()}


def gap(values: list[float], first: int = 0, second: int = 1) -> float:
    return values[first] - values[second]


@pytest.mark.parametrize("name", [*ORDERLESS, *ORDERED])
def test_a_order(name: str) -> None:
    read = index(name, "A")
    assert (read["given"] == pytest.approx(read["reversed"], abs=1e-10)) == (name in ORDERLESS)


@pytest.mark.parametrize("name", ["empirical-mean", "posterior-mean"])
def test_b_means_have_no_recency(name: str) -> None:
    read = index(name, "B")
    assert read["rising"][0] == pytest.approx(0.5, abs=1e-10)
    assert read["falling"][0] == pytest.approx(0.5, abs=1e-10)


@pytest.mark.parametrize(("alpha", "rising", "falling"), [(0.3, 0.716, 0.284), (0.1, 0.537, 0.463)])
def test_b_constant_step(alpha: float, rising: float, falling: float) -> None:
    """alpha sum_j (1 - alpha)^lag r_j + (1 - alpha)^6 Q0, Q0 = .5"""
    read = index("constant-step", "B", step_size=alpha, initial=0.5)
    recent = sum(alpha * (1 - alpha) ** lag for lag in range(3))
    assert read["rising"][0] == pytest.approx(recent + 0.5 * (1 - alpha) ** 6, abs=1e-10)
    assert read["rising"][0] == pytest.approx(rising, abs=5e-4)
    assert read["falling"][0] == pytest.approx(falling, abs=5e-4)


def test_b_gradient_bandit_weighs_recent_rewards() -> None:
    read = index("gradient-bandit", "B")
    assert read["rising"][0] > read["rising"][1]
    assert read["falling"][0] < read["falling"][1]


@pytest.mark.parametrize(
    ("name", "constants", "high", "low"),
    [
        ("empirical-mean", {}, (0.8, 0.8), (0.2, 0.2)),
        ("posterior-mean", {}, (17 / 22, 5 / 7), (5 / 22, 2 / 7)),
        ("ucb", {}, (0.8 + 20**-0.5, 0.8 + 5**-0.5), (0.2 + 20**-0.5, 0.2 + 5**-0.5)),
    ],
)
def test_c_d_closed_forms(
    name: str, constants: dict[str, float], high: tuple[float, float], low: tuple[float, float]
) -> None:
    assert index(name, "C", **constants)["both"] == pytest.approx(high, abs=1e-10)
    assert index(name, "D", **constants)["both"] == pytest.approx(low, abs=1e-10)


def test_c_d_thompson() -> None:
    """p* = .60 for the arm that is further from its prior's middle on the good side."""
    for test, common in (("C", 0.60), ("D", 0.40)):
        law = answers(acting_learner("thompson", {"lapse": 0.0}), double(BANDIT_TESTS[test]))["both"]
        assert law[0, 0].tolist() == pytest.approx([common, 1 - common], abs=5e-3)


@pytest.mark.parametrize(
    ("name", "constants", "high", "low"),
    [
        ("lcb", {}, 1, 1),
        ("exp3", {}, 1, 1),
        ("constant-step", {}, 1, -1),
        ("gradient-bandit", {"baseline": 0.0}, 1, 1),
        ("thompson", {}, 1, -1),
        ("gittins", {}, -1, -1),
    ],
)
def test_c_d_which_arm(name: str, constants: dict[str, float], high: int, low: int) -> None:
    """1 where the arm of 20 pulls is preferred, -1 where that of 5 is: when both are good, and when both are bad."""
    for test, sign in (("C", high), ("D", low)):
        assert sign * gap(index(name, test, **constants)["both"]) > 0


@pytest.mark.parametrize(
    ("name", "constants", "expected"),
    [
        ("empirical-mean", {}, [1, 1, 1, 1, 1]),
        ("posterior-mean", {}, [2 / 3, 3 / 4, 5 / 6, 9 / 10, 17 / 18]),
        ("ucb", {}, [1 + k**-0.5 for k in (1, 2, 4, 8, 16)]),
        ("constant-step", {"step_size": 0.1, "initial": 0.5}, [1 - 0.5 * 0.9**k for k in (1, 2, 4, 8, 16)]),
    ],
)
def test_e_wins_in_a_row(name: str, constants: dict[str, float], expected: list[float]) -> None:
    read = index(name, "E", **constants)
    assert [values[0] for values in read.values()] == pytest.approx(expected, abs=1e-10)


def test_e_gradient_bandit() -> None:
    """Without a baseline the gap grows, with the running mean it stays where the first win has put it."""
    grows = [gap(values) for values in index("gradient-bandit", "E", step_size=0.5, baseline=0.0).values()]
    assert grows == pytest.approx([0.5, 0.88, 1.41, 2.05, 2.73], abs=5e-3)
    stays = [gap(values) for values in index("gradient-bandit", "E", step_size=0.5, baseline=1.0).values()]
    assert stays == pytest.approx([0.5] * 5, abs=1e-10)


@pytest.mark.parametrize("name", [*ORDERLESS, *ORDERED])
def test_f_rewards_of_another_arm(name: str) -> None:
    """Only what couples arms reacts: probabilities of being the best, and the law in a gradient or a propensity."""
    read = index(name, "F")
    moved = abs(gap(read["rich"], 0, 2) - gap(read["poor"], 0, 2)) > 1e-3
    assert moved == (name in ("thompson", "gaussian-thompson", "gradient-bandit"))


@pytest.mark.parametrize(
    ("name", "rises"),
    [("empirical-mean", 0), ("posterior-mean", 0), ("ucb", 0), ("constant-step", 0), ("ucb1", 1)],
)
def test_g_pulls_of_a_third_arm(name: str, rises: int) -> None:
    read = index(name, "G")
    assert gap(read["many"]) - gap(read["few"]) == pytest.approx(0, abs=1e-10) or rises
    assert (gap(read["many"]) > gap(read["few"]) + 1e-3) == bool(rises)


@pytest.mark.parametrize("name", ["empirical-mean", "posterior-mean", "ucb", "constant-step", "gittins"])
def test_h_only_the_bayes_adaptive_index_knows_the_time(name: str) -> None:
    """The arm pulled once loses its appeal against the known one as the end comes near."""
    read = index(name, "H")
    shrinks = gap(read["late"], 1, 0) < gap(read["early"], 1, 0) - 1e-3
    assert shrinks == (name == "gittins")


@pytest.mark.parametrize(
    ("name", "scale_kept", "shift_kept"),
    [("empirical-mean", True, True), ("ucb", False, True), ("posterior-mean", True, False)],
)
def test_i_units_of_reward(name: str, scale_kept: bool, shift_kept: bool) -> None:
    """A mean's ranking is kept; a bonus has a unit of its own, a prior has an origin."""
    read = {context: torch.tensor(values).argsort().tolist() for context, values in index(name, "I").items()}
    assert (read["scaled"] == read["given"]) == scale_kept
    assert (read["shifted"] == read["given"]) == shift_kept


@pytest.mark.parametrize("name", ["empirical-mean", "posterior-mean", "ucb", "thompson", "gaussian-thompson"])
def test_j_sums_do_not_tell_coins_from_their_means(name: str) -> None:
    read = index(name, "J coins")
    assert read["coins"] == pytest.approx(read["means"], abs=1e-10)


def test_t1_returns_against_bootstrapping() -> None:
    """V(A): 0 for returns; .1 V(B) for online TD where B came first, else 0; 6 / 8 for the model.

    A successor row is cached by the same steps, so that it has the model's answer only where B came first.
    """
    exact: dict[str, Any] = {"gamma": 1.0}
    assert [v[0, 0].item() for v in table("monte-carlo-control", "T1", **exact).values()] == [0, 0]
    for name in ("sarsa", "q-learning"):
        read = table(name, "T1", step_size=0.1, **exact)
        assert read["A first"][0, 0] == 0
        assert read["A last"][0, 0].item() == pytest.approx(0.1 * (1 - 0.9**6), abs=1e-10)
    for value in table("certainty-equivalence", "T1", **exact).values():
        assert value[0, 0].item() == pytest.approx(0.75, abs=1e-10)
    successors = table("successor-representation", "T1", step_size=1.0, **exact)
    assert [v[0, 0].item() for v in successors.values()] == pytest.approx([0, 0.75], abs=1e-10)


def test_t2_stitching() -> None:
    """gamma for a model in any order; alpha^2 gamma for one step at a time, if the end came first; 0 for returns."""
    for value in table("certainty-equivalence", "T2", gamma=0.9).values():
        assert value[0, 0].item() == pytest.approx(0.9, abs=1e-10)
    read = table("q-learning", "T2", gamma=0.9, step_size=0.1)
    assert read["end first"][0, 0].item() == pytest.approx(0.1 * 0.9 * 0.1, abs=1e-10)
    assert read["start first"][0, 0] == 0
    for name in ("monte-carlo-control", "episodic-control"):
        assert [value[0, 0].item() for value in table(name, "T2").values()] == [0, 0]


def test_t3_best_action_against_the_usual_one() -> None:
    """A quarter of the visits win: gamma / 4 on average over the law that was followed, gamma for the best action."""
    assert table("monte-carlo-control", "T3", gamma=0.9)["rare win"][0, 0].item() == pytest.approx(0.225, abs=1e-10)
    assert table("certainty-equivalence", "T3", gamma=0.9)["rare win"][0, 0].item() == pytest.approx(0.9, abs=1e-10)
    assert table("q-learning", "T3", gamma=0.9)["rare win"][0, 0].item() == pytest.approx(0.9, abs=0.05)
    for name in ("sarsa", "successor-representation"):
        assert table(name, "T3", gamma=0.9)["rare win"][0, 0].item() == pytest.approx(0.225, abs=0.06)


@pytest.mark.parametrize(
    ("name", "rewards", "routes"),
    [
        ("monte-carlo-control", "L", "L"),
        ("sarsa", "L", "L"),
        ("expected-sarsa", "L", "L"),
        ("q-learning", "L", "L"),
        ("policy-gradient", "L", "L"),
        ("actor-critic", "L", "L"),
        ("episodic-control", "L", "L"),
        ("successor-representation", "R", "L"),
        ("certainty-equivalence", "R", "R"),
        ("ucb-vi", "R", "R"),
        ("posterior-sampling", "R", "R"),
    ],
)
def test_t4_t5_revaluation(name: str, rewards: str, routes: str) -> None:
    """Who replans turns after both, who caches where things lead only after rewards, who caches values never."""
    for test, after in (("T4", rewards), ("T5", routes)):
        laws = answers(acting_learner(name), double(CONTROL_TESTS[test]))
        assert "LR"[int(laws["before"][0, 0].argmax())] == "L"
        assert "LR"[int(laws["after"][0, 0].argmax())] == after


def test_t6_latent_learning() -> None:
    for name in ("certainty-equivalence", "successor-representation"):
        read = table(name, "T6")["shown"]
        assert (read[:4, 1] > read[:4, 0]).all()
    for name in (*ONE_STEP, "monte-carlo-control"):
        read = table(name, "T6")["shown"]
        assert (read[:3] == 0).all()
        assert read[3, 1] > 0


def test_t7_counts() -> None:
    tie = table("certainty-equivalence", "T7")["20 against 5"][0]
    assert tie.tolist() == pytest.approx([0.6, 0.6], abs=1e-10)
    seldom = table("ucb-vi", "T7")["20 against 5"][0]
    assert seldom[1] > seldom[0]


def test_t8_growth() -> None:
    """Values saturate at the reward, preferences grow; a model knows it at once."""
    q = [value[0, 0].item() for value in table("q-learning", "T8", step_size=0.1).values()]
    assert q == pytest.approx([1 - 0.9**k for k in (1, 4, 16, 64)], abs=1e-10)
    model = [value[0, 0].item() for value in table("certainty-equivalence", "T8").values()]
    assert model == pytest.approx([1] * 4, abs=1e-10)
    preferences = [value[0, 0].item() for value in table("policy-gradient", "T8", "preferences").values()]
    assert preferences[3] > preferences[2] + 0.5 > preferences[1] + 1


def test_t9_order_of_transitions() -> None:
    for name, kept in (("certainty-equivalence", True), ("q-learning", False)):
        read = table(name, "T9")
        assert torch.equal(read["given"].round(decimals=10), read["shuffled"].round(decimals=10)) == kept


@pytest.mark.parametrize("sweeps", [1, 2, 4])
def test_t10_distance_found_is_the_number_of_sweeps(sweeps: int) -> None:
    read = table("certainty-equivalence", "T10", sweeps=sweeps)
    assert [name for name, value in read.items() if value[0, 1] > value[0, 0]] == [str(k + 1) for k in range(sweeps)]
