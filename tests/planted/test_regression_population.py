"""The planted networks of in-context regression: they run what they are said to run, and have the right names."""

import math
from dataclasses import replace

import pytest
import torch

from algorithms.bank import REGRESSION as BANK
from algorithms.bank import build, one_function, richer
from algorithms.fit import disagreement
from analyses import labels, planted
from analyses.decoys import ContextBlind
from analyses.draws import EXACT, PERTURBATIONS, varied
from analyses.inspect import report
from analyses.labels import label, reference_prompts
from analyses.planted import Mixture, Planted, Size, plant
from analyses.planted_regression import COLOURED, REGRESSION, WHITE, ShuffledLabels, is_planted, trained_decoy
from analyses.regression_draws import STEPPING, construct, draw_constants
from probes.behaviour import predict
from tasks.markov_reward import TaskFamily
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix

MEMBERS = range(3)
LAYOUT = REGRESSION.layout
TINY = Size(1, 1, 1, ("exact", "perturbed 1 %"), 1, 6, 1, 1, 3, 2, 3)


def prompts(source=WHITE, n=60):
    fit, check = reference_prompts(source, REGRESSION.context_length, LAYOUT)
    return fit.select(slice(0, n)), check.select(slice(0, n))


def off(f, g, source=WHITE):
    """Largest disagreement on the reference tasks, per member."""
    _, prompt = prompts(source)
    with torch.no_grad():
        return disagreement(predict(f, prompt), g.predict(prompt), prompt).amax(-1)


@pytest.mark.parametrize("source", [WHITE, COLOURED], ids=["white", "coloured"])
@pytest.mark.parametrize("looped", [True, False])
@pytest.mark.parametrize("name", STEPPING)
def test_a_drawn_network_runs_its_learner_in_every_exact_variant(name, looped, source):
    n_layers = 1 if name == "averaging" else 4
    drawn = draw_constants(name, n_layers, looped, MEMBERS, "test")
    model = varied(construct(name, drawn, n_layers), EXACT, MEMBERS, "test")
    assert model.config.looped == (looped or n_layers == 1)
    assert off(model, build(name, n_layers, drawn), source).max() < 1e-20
    for key, value in drawn.items():  # and none with other constants; a multiple of GD++'s matrix is the same learner
        other = value + 0.05 * value[..., :1, :1] if name == "gd-plus-plus" and value.ndim > 3 else 1.05 * value
        assert off(model, build(name, n_layers, {**drawn, key: other}), source).min() > 1e-7, key


@pytest.mark.parametrize("name", REGRESSION.functions)
def test_a_learner_without_construction_is_planted_as_it_is(name):
    drawn = draw_constants(name, 3, True, MEMBERS, "test")
    assert set(drawn) == set(labels.constants(BANK[name]))
    for value in drawn.values():
        assert value.shape == (3, 1)
        assert len(set(value.flatten().tolist())) == 3, "members differ"


def labelled(subject, name, learner, folder, *, members=1, n_steps=3, exact=False):
    return label(
        subject, name, learner, prompts(), n_steps=n_steps, looped=True, exact=[exact] * members, folder=folder
    )  # fmt: skip


def gd(*step_sizes, n_steps=3):
    return build("gd", n_steps, {"step_size": torch.tensor(step_sizes, dtype=torch.float64)[:, None, None]})


def test_what_is_exact_has_its_own_name_or_the_class_that_is_one_function(tmp_path):
    assert labelled(gd(0.5), "gd", gd(0.5), tmp_path, exact=True).right == ({"gd"},)
    single = gd(0.5, n_steps=1)
    assert labelled(single, "gd", single, tmp_path, n_steps=1, exact=True).right == (one_function("gd", 1),)
    ols = build("ols", 3)
    assert labelled(ols, "ols", ols, tmp_path, exact=True).right == ({"ols"},)


def test_a_mixture_is_right_for_its_majority_until_another_learner_is_nearer(tmp_path):
    """Close by the richer learners are right too; half of a nearest neighbour is no gradient descent."""
    shares = torch.tensor([0.02, 0.5], dtype=torch.float64)
    subject = Mixture(gd(0.5), build("nearest-neighbour", 3), shares)
    found = labelled(subject, "gd", gd(0.5, 0.5), tmp_path, members=2)
    assert found.noise[0] <= labels.SAME < found.noise[1]
    assert found.right == ({"gd", *richer(3, True)["gd"]}, frozenset())
    assert found.borderline == (False, False)


def test_constants_that_moved_are_found_by_a_refit(tmp_path):
    found = labelled(gd(0.3), "gd", gd(0.6), tmp_path)
    assert found.noise[0] > labels.OTHER
    assert found.right == ({"gd", *richer(3, True)["gd"]},)
    outsider = labelled(build("ridge", 3, {"ridge": 0.2}), "nearest-neighbour", build("nearest-neighbour", 3), tmp_path)
    assert "ridge" in outsider.right[0]
    assert "nearest-neighbour" not in outsider.right[0]


def test_weights_that_no_context_moves_have_no_right_name(tmp_path):
    blind = ContextBlind(RegressionFamily(n_tasks=1).pool([0]))
    found = labelled(blind, "gd", gd(0.5), tmp_path)
    assert (found.right, found.borderline) == ((frozenset(),), (False,))


def test_shuffled_labels_are_the_same_labels_in_another_order():
    before, after = (
        source.training_prompt([0, 1], 3, 4, 20, LAYOUT) for source in (RegressionFamily(), ShuffledLabels())
    )
    features, label_slot = LAYOUT["features"], LAYOUT["label"]
    assert torch.equal(before.tokens[..., features], after.tokens[..., features])
    assert torch.equal(before.answers, after.answers)
    assert torch.equal(before.query_tokens, after.query_tokens)
    first, second = (prompt.context[..., label_slot][..., 0] for prompt in (before, after))
    assert torch.equal(first.sort(-1).values, second.sort(-1).values)
    assert (first != second).double().mean() > 0.8
    alone = ShuffledLabels().training_prompt([1], 3, 4, 20, LAYOUT)
    assert torch.equal(alone.tokens[0], after.tokens[1])


def test_a_network_that_trains_on_one_task_learns_it_by_heart(tmp_path):
    """On its own task its error falls far below the prior's; on others it stays no better than guessing."""
    family = RegressionFamily(REGRESSION.layout.d_features, n_tasks=1)
    model = trained_decoy(family, [0], 150, tmp_path)

    def error(prompt):
        with torch.no_grad():
            missed = predict(model, prompt) - prompt.answers
        return float(missed.square().mean() / prompt.answers.square().mean())

    own = family.pool_prompt([0], "check", 0, 200, REGRESSION.context_length, LAYOUT)
    fresh = family.fresh_prompt([0], "check", 0, 200, REGRESSION.context_length, LAYOUT)
    assert error(own) < 0.3
    assert error(fresh) > 0.8


def test_what_counts_as_planted():
    """Covariates in any rotation, asked as inspection asks; another spectrum, prior, noise or length is not counted."""
    rotated = replace(WHITE, covariance=covariance_matrix(AHN_SPECTRUM, rotation=7))
    for source in (WHITE, COLOURED, rotated):
        assert is_planted(source, 20)
        assert not is_planted(source, 40)
    for source in (
        replace(WHITE, covariance=covariance_matrix((1.0, 1.0, 0.5, 0.0625, 1.0), rotation=0)),
        replace(COLOURED, prior="identity"),
        replace(WHITE, noise=0.5),
        TaskFamily(),
    ):
        assert not is_planted(source, 20)


def test_inspection_says_how_often_such_an_answer_was_right():
    model = construct("gd", draw_constants("gd", 2, True, [0], "test"), 2)
    (seed,) = report(model, "linear-regression", fitting_tasks=30, held_out_tasks=40)["seeds"]
    assert (seed["outcome"], seed["learners"]) == ("identified", ["gd"])
    assert seed["confidence"]["n"] >= 20
    assert seed["confidence"]["rate"] > 0.9


def in_turn(function, jobs, *_):
    return [function(*job) for job in jobs]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[list[Planted], list[Planted]]:
    """Built twice, the second time from what the first has left; shallow, and the students are far from done.

    In this process alone: it sees what is patched.
    """
    folder = tmp_path_factory.mktemp("planted")
    small = replace(REGRESSION, sizes={"tiny": TINY}, deepest={True: 2, False: 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted, "in_parallel", in_turn)
        patch.setattr(labels, "REFERENCE_TASKS", 48)
        labels._reference_prompt.cache_clear()
        first, second = (plant(small, "calibration", "tiny", folder) for _ in range(2))
    labels._reference_prompt.cache_clear()
    return first, second


def test_the_population_holds_every_kind(tiny):
    first, _ = tiny
    assert {p.kind for p in first} >= {*REGRESSION.constructed, *REGRESSION.functions, "one-step", "mixture"}
    assert {p.source for p in first if p.kind == "gd"} == {WHITE, COLOURED}
    for p in first:
        prompt = reference_prompts(p.source, p.context_length, p.layout)[1].select(slice(0, 3))
        with torch.no_grad():
            predictions = predict(p.subject, prompt)
        n = len(predictions)
        assert predictions.shape == (n, 3, 10, 1)
        assert len(p.variant) == len(p.right) == len(p.noise) == len(p.borderline) == n
        if p.learner is None:
            assert not any(p.right)
            assert all(map(math.isnan, p.noise))
        for variant, right, noise in zip(p.variant, p.right, p.noise, strict=True):
            if variant in EXACT:
                assert noise < 1e-20
                assert right == (one_function("averaging", 1) if p.kind == "one-step" else {p.kind})
            if variant in PERTURBATIONS:
                assert noise > 1e-8


def test_a_second_build_finds_the_same(tiny):
    for a, b in zip(*tiny, strict=True):
        assert (a.kind, a.variant, a.right, a.borderline) == (b.kind, b.variant, b.right, b.borderline)
        with torch.no_grad():
            assert torch.equal(predict(a.subject, prompts(n=3)[0]), predict(b.subject, prompts(n=3)[0]))
