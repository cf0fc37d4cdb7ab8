"""Asking again: ambiguous members are asked where their rivals differ, with the constants that fitted before."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from algorithms.temporal_difference import LSTD, TD0
from analyses.examine import ask, ask_again, decide_round, examine, narrow
from models import constructions
from probes.behaviour import Subject, predict
from probes.discrimination import PromptFamily, candidates, prompts_from
from probes.verdict import FITS, Thresholds, Verdict
from tasks.layout import transition_layout
from tasks.markov_reward import TaskFamily

D = 3
LAYOUT = transition_layout(D, discount=0.9)
TASKS = TaskFamily(n_states=6, d_features=D)
PROMPTS = prompts_from(LAYOUT)
FAMILIES = candidates(TASKS, LAYOUT, looped=True, context_length=20)
OWN = FAMILIES[0]
SIZES = (30, 40)
ALPHA = 1.2 * torch.eye(D, dtype=torch.float64)[None, None]
TD_NETWORK = constructions.td0(ALPHA, n_layers=3, gamma_eff=0.8)


@dataclass(frozen=True)
class Between:
    """A function that is TD(0) but for a share of LSTD: near both on its own prompts."""

    share: float

    def predict(self, prompt):
        td, lstd = TD0(3, 1.2, 0.8).predict(prompt), LSTD(0.15, 0.8).predict(prompt)
        return (1 - self.share) * td + self.share * lstd


def subject(predictor, looped=True):
    return Subject(predictor, 1, LAYOUT, 3, looped, 0.9)


def test_one_round_is_enough_for_a_construction():
    found = examine(Subject.of(TD_NETWORK), FAMILIES, PROMPTS, fitting_tasks=30, held_out_tasks=40)
    assert [(v.outcome, v.learners) for v in found.verdicts] == [("identified", ("td0",))]
    assert found.rounds_of(0) == list(found.rounds)
    assert (len(found.rounds), found.searches) == (1, ())


def test_in_later_rounds_rivals_keep_their_constants_and_take_the_steps_of_the_loops():
    network = Subject.of(TD_NETWORK)
    first = ask(network, OWN, PROMPTS, SIZES)
    deep = next(family for family in FAMILIES if family.loops == 2)
    again = ask_again(network, first, deep, PROMPTS, (0,), ("td0", "lstd"), 40)
    deeper = again.fits["td0"].learner
    assert isinstance(deeper, TD0)
    assert deeper.n_steps == 6
    torch.testing.assert_close(again.fits["td0"].constants["gamma"], first.fits["td0"].constants["gamma"])
    assert again.comparison.disagreement["td0"].max() < 1e-10
    assert again.comparison.disagreement["lstd"].nanquantile(0.5) > 2 * first.comparison.disagreement[
        "lstd"
    ].nanquantile(0.5)


def test_an_ambiguous_member_is_asked_where_the_rivals_differ():
    """With a large margin even a small share of LSTD makes TD(0) ambiguous; it stays among those first named."""
    strict = Thresholds(margin=200.0)
    families = [family for family in FAMILIES if family.loops == 1]
    found = examine(
        subject(Between(0.2), looped=False), families, PROMPTS, fitting_tasks=30, held_out_tasks=40, thresholds=strict
    )
    (verdict,), (search,) = found.verdicts, found.searches
    assert verdict.outcome == "ambiguous"
    assert "td0" in verdict.learners
    assert len(found.rounds) > 1
    assert {separation.family for separation in search} == set(families)
    for asked in found.rounds[1:]:
        assert set(asked.comparison.disagreement) <= set(found.rounds[0].comparison.disagreement)


def test_a_later_round_decides_only_where_something_fits():
    family = PromptFamily("40 states", replace(TASKS, n_states=40), 20, 0.9)
    before = Verdict("ambiguous", ("td0", "lstd"), "too close", noise=0.01, margin=5.0)
    silent = narrow(before, Verdict("none", (), "no rival fits", noise=0.5), family)
    assert (silent.outcome, silent.learners, silent.noise) == ("ambiguous", ("td0", "lstd"), 0.01)
    assert silent.note == "too close; on 40 states, where they differ, no rival fits"
    told = narrow(before, Verdict("identified", ("lstd",), "lstd leaves 0.001", noise=0.001, margin=50.0), family)
    assert (told.outcome, told.learners, told.noise) == ("identified", ("lstd",), 0.001)
    assert told.note == "too close; on 40 states, where they differ, lstd leaves 0.001"


def test_where_none_of_the_rivals_fits_no_further_prompts_are_tried():
    """TD(0) beside a share of LSTD is far from both where they differ: one round says so, and it stays ambiguous."""
    found = examine(
        subject(Between(0.3), looped=False),
        [family for family in FAMILIES if family.loops == 1],
        PROMPTS,
        fitting_tasks=30,
        held_out_tasks=40,
        thresholds=Thresholds(fits=1e-3, margin=200.0),
    )
    outcomes = [decide_round(found.subject, asked, 0, Thresholds(fits=1e-3)).outcome for asked in found.rounds]
    assert outcomes[1:-1].count("none") == 0


def test_only_looped_networks_run_deeper():
    assert predict(Subject.of(TD_NETWORK).deeper(2), PROMPTS(OWN, "test", 2)).shape == (1, 2, 6, 1)
    separate = constructions.td0(ALPHA.expand(1, 3, D, D), n_layers=3)
    for one, message in ((Subject.of(separate), "looped is False"), (subject(Between(0.1)), "only a looped Linear")):
        assert not one.can_loop
        assert one.deeper(1) is one.predictor
        with pytest.raises(ValueError, match=message):
            one.deeper(2)


def test_thresholds_decide_what_fits():
    first = ask(subject(Between(0.5)), OWN, PROMPTS, SIZES)
    left = np.nanmedian(first.comparison.disagreement["td0"][0])
    assert 1e-4 < left < FITS
