"""The decision rule, clause by clause, on made-up disagreements."""

import numpy as np
import pytest

from algorithms.bank import RIVALS
from probes.verdict import FITS, FLOOR, MARGIN, Relations, Verdict, decide, tally, without_bootstrap

N_TASKS = 200


def spread(level):
    """Per-task disagreements whose median is about `level`."""
    return level * np.random.default_rng(0).lognormal(sigma=0.3, size=N_TASKS)


def rule(levels, *, gap=0.5, gaps=None, n_steps=3, shared=True, diverged=0.0, far=0.5, **more):
    """The verdict where every rival has a disagreement of `far` but those listed, and all lie `gap` apart."""
    disagreement = {name: spread(levels.get(name, far)) for name in RIVALS}
    distance = {a: {b: (gaps or {}).get(frozenset((a, b)), gap) for b in RIVALS} for a in RIVALS}
    return decide(disagreement, distance, diverged=diverged, relations=Relations.of_values(n_steps, shared), **more)


TD: dict[str, float] = dict.fromkeys(("td0", "td-lambda", "td-plus-plus", "preconditioned-td"), 1e-30)


def test_the_only_rival_that_fits_is_identified():
    verdict = rule({"lstd": 0.001})
    assert (verdict.outcome, verdict.learners) == ("identified", ("lstd",))


def test_none_fits():
    verdict = rule({"td0": 1.5 * FITS})
    assert (verdict.outcome, verdict.learners) == ("none", ())
    assert "td0" in verdict.note


def test_of_nested_rivals_that_fit_alike_the_simplest_is_named():
    verdict = rule(TD)
    assert (verdict.outcome, verdict.learners) == ("identified", ("td0",))


def test_rounding_is_no_improvement():
    """A fifth of 1e-12 is left by TD(lambda), but both are zero as far as numbers go."""
    verdict = rule({**TD, "td0": 0.01 * FLOOR, "td-lambda": 0.002 * FLOOR})
    assert verdict.learners == ("td0",)


def test_a_richer_rival_is_named_where_it_removes_a_quarter():
    levels = {**TD, "td0": 0.01, "td-plus-plus": 0.01, "preconditioned-td": 0.01}
    assert rule({**levels, "td-lambda": 0.70 * 0.01}, gap=0.1).learners == ("td-lambda",)
    assert rule({**levels, "td-lambda": 0.97 * 0.01}, gap=0.1).learners == ("td0",)


def test_a_richer_rival_that_removes_less_is_named_beside_the_simpler_one():
    levels = {**TD, "td0": 0.01, "td-plus-plus": 0.01, "preconditioned-td": 0.01}
    verdict = rule({**levels, "td-lambda": 0.80 * 0.01}, gap=0.1)
    assert (verdict.outcome, verdict.learners) == ("ambiguous", ("td0", "td-lambda"))
    assert "td-lambda explains a little more, beyond chance" in verdict.note


def test_a_richer_rival_is_not_named_on_chance():
    """It removes half of the median, but on as many tasks it is worse: the paired interval reaches below zero."""
    rng = np.random.default_rng(0)
    simple = spread(0.01)
    rich = np.where(rng.random(N_TASKS) < 0.5, 0.2 * simple, 1.01 * simple)
    disagreement = {name: spread(0.5) for name in RIVALS} | {"td0": simple, "td-lambda": rich}
    disagreement |= dict.fromkeys(("td-plus-plus", "preconditioned-td"), simple)
    distance = {a: dict.fromkeys(RIVALS, 0.5) for a in RIVALS}
    assert decide(disagreement, distance, diverged=0.0, relations=Relations.of_values(3, True)).learners == ("td0",)


def test_rivals_outside_the_nesting_must_be_beaten():
    verdict = rule({"lstd": 0.001, "monte-carlo": 0.001}, gap=0.1)
    assert (verdict.outcome, verdict.learners) == ("ambiguous", ("lstd", "monte-carlo"))
    assert rule({"lstd": 0.001, "monte-carlo": 0.002}, gap=0.1).learners == ("lstd",)


def test_discrimination_comes_first():
    """LSTD disagrees far less, but Monte Carlo is so close to it that what is left over could hide the difference."""
    levels, pair = {"lstd": 0.01, "monte-carlo": 0.05}, frozenset(("lstd", "monte-carlo"))
    near, far = ({pair: factor * MARGIN * 0.01} for factor in (0.9, 1.5))
    assert rule(levels, gaps=near).learners == ("lstd", "monte-carlo")
    assert rule(levels, gaps=near).outcome == "ambiguous"
    assert rule(levels, gaps=far).learners == ("lstd",)


def test_rivals_that_cannot_be_told_apart_even_exactly_are_ambiguous():
    verdict = rule({"lstd": 0.0, "monte-carlo": 1e-6}, gaps={frozenset(("lstd", "monte-carlo")): FLOOR})
    assert verdict.outcome == "ambiguous"


def test_one_step_answers_with_the_whole_class():
    same = ("reward-average", "myopic", "td0", "td-plus-plus", "preconditioned-td")
    exact = dict.fromkeys((*same, "residual-gradient", "td-lambda"), 0.0)
    verdict = rule(exact, n_steps=1)
    assert (verdict.outcome, verdict.learners) == ("identified", same)
    assert "one function" in verdict.note
    # a matrix that is no multiple of I: the scalar learners leave something over
    matrix = rule({**dict.fromkeys(exact, 0.01), "preconditioned-td": 0.0}, n_steps=1)
    assert matrix.learners == ("preconditioned-td",)


def test_reward_averaging_is_outside_the_nesting_of_looped_learners():
    levels = dict.fromkeys(("reward-average", "myopic", "td0"), 0.0)
    assert rule(levels, shared=False).learners == ("reward-average",)
    assert rule(levels, shared=True).outcome == "ambiguous"


def test_a_subject_that_mostly_diverges_is_none():
    verdict = rule(TD, diverged=0.75)
    assert verdict.outcome == "none"
    assert "75%" in verdict.note


def test_a_rival_that_mostly_diverges_does_not_fit():
    disagreement = {name: spread(TD.get(name, 0.5)) for name in RIVALS}
    disagreement["td0"] = np.where(np.arange(N_TASKS) % 4 == 0, disagreement["td0"], np.nan)
    distance = {a: dict.fromkeys(RIVALS, 0.5) for a in RIVALS}
    assert "td0" not in decide(disagreement, distance, diverged=0.0, relations=Relations.of_values(3, True)).learners


def test_a_rival_on_other_tasks_than_the_named_one_is_not_beaten():
    """LSTD and Monte Carlo are each valid on half of the tasks, and on none together."""
    half = np.arange(N_TASKS) % 2 == 0
    disagreement = {name: spread(0.5) for name in RIVALS}
    disagreement["lstd"] = np.where(half, 1e-30, np.nan)
    disagreement["monte-carlo"] = np.where(half, np.nan, 0.5)
    distance = {a: dict.fromkeys(RIVALS, 0.5) for a in RIVALS}
    verdict = decide(disagreement, distance, diverged=0.0, relations=Relations.of_values(3, True))
    assert (verdict.outcome, verdict.learners) == ("ambiguous", ("lstd", "monte-carlo"))


def test_only_the_tasks_on_which_the_subject_converges_count_against_a_rival():
    """Where the subject diverges nothing is compared; a rival that diverges on most of the rest is another learner."""
    subject, tasks = 0.4, np.arange(N_TASKS) / N_TASKS
    distance = {a: dict.fromkeys(RIVALS, 0.5) for a in RIVALS}

    def lstd_beside_monte_carlo(lost):
        disagreement = {name: np.where(tasks < subject, np.nan, spread(0.5)) for name in RIVALS}
        disagreement["lstd"] = np.where(tasks < subject, np.nan, 1e-30)
        disagreement["monte-carlo"] = np.where(tasks < subject + (1 - subject) * lost, np.nan, 1e-30)
        return decide(disagreement, distance, diverged=subject, relations=Relations.of_values(3, True)).learners

    assert lstd_beside_monte_carlo(0.3) == ("lstd", "monte-carlo")
    assert lstd_beside_monte_carlo(0.7) == ("lstd",)


def test_a_rival_that_stopped_at_a_bound_is_not_displaced():
    levels = {**TD, "td0": 0.01, "td-lambda": 0.01, "td-plus-plus": 1e-4, "preconditioned-td": 0.01}
    assert rule(levels).learners == ("td-plus-plus",)
    verdict = rule(levels, bounded=["td0"])
    assert (verdict.outcome, verdict.learners) == ("ambiguous", ("td0", "td-plus-plus"))
    assert "td0 stopped at a bound" in verdict.note
    # one that does not fit is displaced by a richer rival that is exact, within bounds of its own
    levels |= {"td0": 0.1}
    assert rule(levels, bounded=["td0"]).outcome == "ambiguous"
    levels |= {"td-plus-plus": 1e-30}
    assert rule(levels, bounded=["td0"]).learners == ("td-plus-plus",)
    assert rule(levels, bounded=["td0", "td-plus-plus"]).outcome == "ambiguous"
    # nor does it matter to learners outside the nesting
    assert rule({"lstd": 1e-4}, bounded=["td0", "lstd"]).outcome == "identified"


def test_the_note_says_where_nothing_is_bootstrapped():
    blind, seeing = (rule({"preconditioned-td": 0.0}, gammas={"preconditioned-td": g}) for g in (1e-9, 0.5))
    assert blind.learners == seeing.learners == ("preconditioned-td",)
    assert "the fitted gamma of preconditioned-td is 0, so it does not bootstrap" in blind.note
    assert "bootstrap" not in seeing.note
    assert without_bootstrap(["td0", "lstd"], {"td0": 0.0, "lstd": 0.9}) == ("td0",)
    assert without_bootstrap(["td0"], {}) == ()
    assert without_bootstrap(["monte-carlo", "average-reward-td"], {"monte-carlo": 0.0}) == ()


def test_learners_that_act_are_decided_by_the_same_rule():
    """UCB contains the empirical mean, which is named where both fit alike; Thompson's law lies apart."""
    levels = {"empirical-mean": 0.005, "ucb": 0.0049, "thompson": 0.5}
    disagreement = {name: spread(level) for name, level in levels.items()}
    distance = {a: {b: 0.0 if {a, b} == {"empirical-mean", "ucb"} else 0.5 for b in levels} for a in levels}
    verdict = decide(disagreement, distance, diverged=0.0, relations=Relations.of_laws())
    assert (verdict.outcome, verdict.learners) == ("identified", ("empirical-mean",))


@pytest.mark.parametrize(
    ("seeds", "outcome", "learners"),
    [
        ([("identified", ("td0",))], "identified", ("td0",)),
        ([("identified", ("td0",))] * 3, "identified", ("td0",)),
        ([("none", ())] * 2, "none", ()),
        ([("identified", ("td0",)), ("none", ())], "ambiguous", ("td0",)),
        ([("identified", ("lstd",)), ("ambiguous", ("myopic", "td0"))], "ambiguous", ("myopic", "td0", "lstd")),
        ([("ambiguous", ("td0", "lstd"))] * 2, "ambiguous", ("td0", "lstd")),
    ],
)
def test_tally(seeds, outcome, learners):
    verdict = tally([Verdict(*seed, note="") for seed in seeds])
    assert (verdict.outcome, verdict.learners) == (outcome, learners)
