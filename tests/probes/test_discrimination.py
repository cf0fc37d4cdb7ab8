"""The search for prompts that tell rivals apart: what none can separate, what depth does, and how they are ranked."""

from dataclasses import fields, replace

import pytest
import torch

from algorithms.bank import RIVALS, build, one_function, richer
from algorithms.fit import DIVERGED, disagreement
from algorithms.temporal_difference import TD0
from models import constructions
from models.config import ConfigError
from probes.behaviour import predict
from probes.discrimination import (
    PromptFamily,
    candidates,
    distinct_pairs,
    prompts_from,
    rival_gaps,
    separations,
)
from tasks.layout import transition_layout
from tasks.markov_reward import TaskFamily

D, GAMMA = 3, 0.9
LAYOUT = transition_layout(D, discount=GAMMA)
TASKS = TaskFamily(n_states=6, d_features=D)
ASK = prompts_from(LAYOUT)
OWN = PromptFamily("own prompts", TASKS, context_length=20, discount=GAMMA)
ONE_STEP = sorted(one_function("td0", 1))
CONSTANTS = {
    "myopic": {"step_size": 1.2},
    "td0": {"step_size": 1.2, "gamma": 0.8},
    "td-lambda": {"step_size": 1.2, "gamma": 0.8, "lam": 0.3},
    "preconditioned-td": {"preconditioner": torch.diag(torch.tensor([1.8, 1.2, 0.6]).double())[None], "gamma": 0.8},
    "lstd": {"ridge": 1e-8, "gamma": 0.8},
}


def bank(*names, n_steps=3):
    return {name: build(name, n_steps, CONSTANTS.get(name)) for name in names}


def loops(*factors):
    return [replace(OWN, name=f"{factor} times", loops=factor) for factor in factors]


def found(learners, families, *, n_steps=3, shared=True):
    """The separations by the name of the family, in the order of the families."""
    by_name = {s.family.name: s for s in separations(learners, families, ASK, n_steps=n_steps, shared=shared)}
    return {family.name: by_name[family.name] for family in families}


class TestGaps:
    def test_a_learner_that_contains_another_has_no_gap_from_it(self):
        learners, above = bank("myopic", "td0", "td-lambda", "preconditioned-td"), richer(3, True)
        (own,) = separations(learners, [OWN], ASK, n_steps=3, shared=True)
        for a in learners:
            for b in learners:
                assert (own.gap[a][b] < 1e-10) == (a == b or b in above[a])

    def test_the_gap_by_its_formula(self):
        """Reward averaging is alpha times a fixed function, so its fit is a weighted mean."""
        td, average = TD0(3, 1.2, 0.8), build("reward-average", 3)
        fitting, held_out = (ASK(OWN, purpose, 20) for purpose in ("test/fit", "test/held-out"))
        f, g = td.predict(fitting)[0, ..., 0], average.predict(fitting)[0, ..., 0]
        weights = fitting.weights[0] / (fitting.weights[0] * f**2).sum(-1, keepdim=True)
        alpha = (weights * f * g).sum() / (weights * g**2).sum()
        gap = rival_gaps({"td0": td, "reward-average": average}, fitting, held_out, n_steps=3, shared=True)

        def expected(step_size):
            return disagreement(td.predict(held_out), step_size * average.predict(held_out), held_out).quantile(0.5)

        assert gap["td0"]["reward-average"] == pytest.approx(expected(alpha).item(), rel=1e-6)
        assert gap["td0"]["reward-average"] != pytest.approx(expected(1.05 * alpha).item(), rel=1e-2)

    @pytest.mark.parametrize("shared", [True, False])
    def test_one_step_is_one_function_on_any_prompts(self, shared):
        identity = {"preconditioner": 1.2 * torch.eye(D)[None]}
        learners = {name: build(name, 1, {**CONSTANTS, "preconditioned-td": identity}.get(name)) for name in ONE_STEP}
        terminal, flat = (replace(TASKS, **change) for change in ({"reward": "terminal"}, {"feature_rank": 1}))
        changes = ({}, {"context_length": 2}, {"source": terminal}, {"discount": 0.5}, {"source": flat})
        families = [replace(OWN, **change) for change in changes]
        for separation in separations(learners, families, ASK, n_steps=1, shared=shared):
            assert max(gap for gaps in separation.gap.values() for gap in gaps.values()) < 1e-10
            assert (separation.closest, separation.smallest) == (None, 0.0)

    def test_tasks_on_which_the_fitted_rival_diverges_count_as_far_away(self):
        """Features 30 times as long leave LSTD's values alone and blow TD(0)'s up."""
        fitting, held_out = (ASK(OWN, purpose, 20) for purpose in ("test/fit", "test/held-out"))
        tokens = held_out.tokens.clone()
        for name in ("features", "next_features"):
            tokens[..., LAYOUT[name]] *= 30
        gap = rival_gaps(bank("lstd", "td0"), fitting, replace(held_out, tokens=tokens), n_steps=3, shared=True)
        assert gap["lstd"]["td0"] == DIVERGED**2
        assert gap["lstd"]["lstd"] < 1e-10

    def test_seeds_are_pooled(self):
        one = rival_gaps(bank("td0", "lstd"), *(ASK(OWN, p, 20) for p in "ab"), n_steps=3, shared=True)
        step_size = torch.full((3, 1, 1), 1.2, dtype=torch.float64)
        learners = {"td0": TD0(3, step_size, 0.8), "lstd": bank("lstd")["lstd"]}
        three = rival_gaps(learners, *(ASK(OWN, p, 20) for p in "ab"), n_steps=3, shared=True)
        assert three["td0"]["lstd"] == pytest.approx(one["td0"]["lstd"], rel=1e-6)
        assert three["lstd"]["td0"] == pytest.approx(one["lstd"]["td0"], rel=1e-6)

    def test_zero_has_no_scale_to_be_far_from(self):
        gap = rival_gaps(bank("zero", "lstd"), *(ASK(OWN, p, 20) for p in "ab"), n_steps=3, shared=True)
        assert gap["zero"]["lstd"] != gap["zero"]["lstd"]
        assert gap["lstd"]["zero"] == 1


class TestDepth:
    def test_with_more_loops_a_rival_that_solves_stays_behind(self):
        """At L = 3 a large ridge imitates an unfinished TD(0); it does not finish when TD(0) does."""
        gaps = [s.gap["td0"]["lstd"] for s in found(bank("td0", "lstd"), loops(1, 4, 16)).values()]
        assert 0.01 < gaps[0] < 0.1
        assert gaps == sorted(gaps)
        assert gaps[2] > 3 * gaps[0]

    def test_but_fitted_anew_they_come_to_one_fixed_point(self):
        fitting, held_out = (ASK(OWN, purpose, 20) for purpose in ("test/fit", "test/held-out"))
        gaps = [
            rival_gaps(bank("td0", "lstd", n_steps=n), fitting, held_out, n_steps=n, shared=True)["td0"]["lstd"]
            for n in (3, 12, 48)
        ]
        assert gaps == sorted(gaps, reverse=True)
        assert gaps[2] < 0.1 * gaps[0]

    def test_more_loops_look_further_ahead(self):
        """A myopic learner never gets to see what is two rewards away."""
        by_name = found(bank("td0", "myopic"), loops(1, 4))
        near, far = (by_name[f"{factor} times"].gap["td0"]["myopic"] for factor in (1, 4))
        assert far > 1.5 * near > 0.01

    def test_one_step_learners_come_apart_in_a_second_step(self):
        """So their gap at one step counts: zero, on prompts that another family does better."""
        best, own = separations(bank("myopic", "td0", n_steps=1), loops(1, 2), ASK, n_steps=1, shared=True)
        assert (best.family.loops, own.family.loops) == (2, 1)
        assert best.closest == own.closest == ("td0", "myopic")
        assert best.smallest > 0.005 > 1e-10 > own.smallest

    def test_reward_averaging_takes_one_step_at_any_depth(self):
        by_name = found(bank("reward-average", "lstd"), loops(1, 4))
        first, deep = by_name["1 times"], by_name["4 times"]
        assert first.gap["lstd"] == deep.gap["lstd"]

    def test_steps_with_constants_of_their_own_cannot_be_repeated(self):
        with pytest.raises(
            ConfigError, match=r"'2 times' asks for 2 times the loops.*allowed: families with loops = 1"
        ):
            separations(bank("td0", "lstd"), loops(1, 2), ASK, n_steps=3, shared=False)


class TestSearch:
    FAMILIES = (
        OWN,
        replace(OWN, name="context of 3", context_length=3),
        replace(OWN, name="40 states", source=replace(TASKS, n_states=40)),
    )

    def test_the_widest_smallest_gap_comes_first(self):
        ranked = separations(bank("td0", "td-lambda", "lstd"), self.FAMILIES, ASK, n_steps=3, shared=True)
        pairs = distinct_pairs(("td0", "td-lambda", "lstd"), 3, True)
        assert ("td0", "td-lambda") not in pairs
        assert ("td-lambda", "td0") in pairs
        for separation in ranked:
            assert separation.smallest == min(separation.gap[a][b] for a, b in pairs)
            assert separation.closest in [(a, b) for a, b in pairs if separation.gap[a][b] == separation.smallest]
        assert [s.smallest for s in ranked] == sorted((s.smallest for s in ranked), reverse=True)

    def test_the_order_of_learners_does_not_matter(self):
        there = found(bank("td0", "lstd"), self.FAMILIES[:2])
        back = found(bank("lstd", "td0"), self.FAMILIES[:2])
        for family in self.FAMILIES[:2]:
            for a, gaps in there[family.name].gap.items():
                assert back[family.name].gap[a] == pytest.approx(gaps, rel=1e-5, abs=1e-10)

    def test_prompts_on_which_a_rival_diverges_come_last(self):
        fast = {"td0": TD0(3, 3.0, 0.8), "lstd": bank("lstd")["lstd"]}
        near, far = separations(fast, loops(1, 16), ASK, n_steps=3, shared=True)
        assert (near.family.loops, near.note) == (1, "")
        assert far.diverged["td0"] > 0.25 > far.diverged["lstd"]
        assert far.note == f"td0 diverges on {far.diverged['td0']:.0%} of the tasks"

    def test_pairs_that_count(self):
        assert distinct_pairs(("td0", "td-lambda"), 3, True) == [("td-lambda", "td0")]
        assert distinct_pairs(ONE_STEP, 1, True) == []
        assert set(distinct_pairs(("td0", "lstd"), 1, True)) == {("td0", "lstd"), ("lstd", "td0")}
        assert len(distinct_pairs(RIVALS, 3, True)) > len(distinct_pairs(RIVALS, 1, True))


class TestPrompts:
    def test_candidates_differ_from_the_subjects_prompts_in_one_thing(self):
        source, layout = TaskFamily(d_features=4), transition_layout(4, discount=0.9)
        own, *others = candidates(source, layout, looped=True, context_length=30)
        assert own == PromptFamily("own prompts", source, 30, 0.9)
        for family in others:
            changed = [f.name for f in fields(family) if getattr(family, f.name) != getattr(own, f.name)]
            assert len(changed) == 2
            assert "name" in changed
            pairs = ((getattr(family.source, f.name), getattr(source, f.name)) for f in fields(source))
            assert sum(a != b for a, b in pairs) == ("source" in changed)
        assert len({family.name for family in others}) == len(others)
        assert [family.context_length for family in others if family.context_length != 30] == [2, 4, 8, 120]
        assert [family.loops for family in others if family.loops > 1] == [2, 4]

    @pytest.mark.parametrize(("d", "n", "states", "discount"), [(1, 1, 5, 1.0), (2, 4, 20, 0.5), (8, 16, 40, 0.99)])
    def test_candidates_name_nothing_twice(self, d, n, states, discount):
        source, layout = TaskFamily(n_states=states, d_features=d), transition_layout(d, discount=discount)
        families = candidates(source, layout, looped=False, context_length=n)
        questions = [replace(family, name="") for family in families]
        assert len(set(questions)) == len(questions)
        assert all(family.loops == 1 for family in families)

    @pytest.mark.parametrize("change", [{"reward": "terminal"}, {"feature_rank": 2}, {"n_states": 5}], ids=str)
    def test_a_family_says_which_tasks_are_asked_about(self, change):
        tasks = replace(TASKS, **change)
        family = replace(OWN, source=tasks)
        expected = tasks.fresh_prompt([0], "test", 0, 4, 20, LAYOUT).to(torch.float64)
        assert ASK(family, "test", 4).tokens.equal(expected.tokens)
        assert not ASK(family, "test", 4).tokens.equal(ASK(family, "another", 4).tokens)

    def test_representable_tasks_have_dense_rewards(self):
        families = candidates(replace(TASKS, representable=True), LAYOUT, looped=False, context_length=20)
        for family in families:
            assert isinstance(family.source, TaskFamily)
            assert family.source.representable == (family.source.reward == "dense")

    def test_another_discount_of_the_tokens_is_another_gamma_for_subject_and_learner_alike(self):
        own, halved = ASK(OWN, "test", 4), ASK(replace(OWN, discount=0.45), "test", 4)
        assert halved.layout == own.layout
        subject = constructions.td0(torch.eye(D, dtype=torch.float64)[None, None], n_layers=3, gamma_eff=0.8)
        for asked, gamma in ((own, 0.8), (halved, 0.4)):
            expected = TD0(3, 1.0, gamma).predict(own)
            torch.testing.assert_close(predict(subject, asked), expected, rtol=0, atol=1e-7)
            torch.testing.assert_close(TD0(3, 1.0, 0.8).predict(asked), expected, rtol=0, atol=1e-7)
