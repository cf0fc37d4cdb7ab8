"""The planted population: networks run the learners they are said to run, and right names follow the stated rule."""

import math
from dataclasses import replace

import pytest
import torch

from algorithms.bank import build, one_function, richer
from algorithms.fit import disagreement, square_mean
from analyses import labels, planted
from analyses.decoys import ShuffledRewards, context_blind, smoother
from analyses.draws import EXACT, LARGEST_STEP, PERTURBATIONS, construct, draw_constants, varied
from analyses.labels import label, reference_prompts
from analyses.planted import Mixture, Planted, plant
from analyses.planted_values import SOURCE, VALUE_ESTIMATORS
from models.config import ConfigError, LinearTransformerConfig
from probes.behaviour import predict
from probes.weights import relevance
from tasks.markov_reward import TaskFamily

MEMBERS = range(3)
LAYOUT = VALUE_ESTIMATORS.layout


def reference_prompt(layout, n):
    """The first n of the reference tasks that are measured on."""
    return reference_prompts(SOURCE, VALUE_ESTIMATORS.context_length, layout)[1].select(slice(0, n))


def drawn_network(name, n_layers, looped, variants=("exact",) * 3, purpose="test"):
    drawn = draw_constants(name, n_layers, looped, range(len(variants)), purpose)
    return varied(construct(name, drawn, n_layers), variants, range(len(variants)), purpose), drawn


def off(model, learner):
    """Largest disagreement on twenty reference tasks, per member."""
    prompt = reference_prompt(model.layout, 20)
    with torch.no_grad():
        return disagreement(predict(model, prompt), learner.predict(prompt), prompt).amax(-1)


@pytest.mark.parametrize("looped", [True, False])
@pytest.mark.parametrize("name", LARGEST_STEP)
def test_a_drawn_network_runs_its_learner_in_every_exact_variant(name, looped):
    n_layers = 1 if name == "reward-average" else 4
    model, drawn = drawn_network(name, n_layers, looped, EXACT)
    assert off(model, build(name, n_layers, drawn)).max() < 1e-20
    for key, value in drawn.items():  # and none with other constants
        assert off(model, build(name, n_layers, {**drawn, key: 1.05 * value})).min() > 1e-7, key


def test_filling_touches_the_irrelevant_entries_alone():
    plain, _ = drawn_network("td0", 3, False)
    filled, _ = drawn_network("td0", 3, False, ("filled",) * 3)
    for name, relevant in zip("PQ", relevance(plain.config), strict=True):
        before, after = getattr(plain, name)[:, :, 0], getattr(filled, name)[:, :, 0]
        assert torch.equal(before != after, ~relevant.expand_as(before))
    last = plain.P[0, -1, 0, -1, -1]
    assert 0.5 * last < filled.P[:, -1, 0, :-1].square().mean().sqrt() < 2 * last


@pytest.mark.parametrize("variant", PERTURBATIONS)
def test_a_perturbation_has_its_share_of_the_norm_of_the_relevant_weights(variant):
    n = 200
    plain, _ = drawn_network("residual-gradient", 2, False, ("exact",) * n)
    noisy, _ = drawn_network("residual-gradient", 2, False, (variant,) * n)
    for name, relevant in zip("PQ", relevance(plain.config), strict=True):
        before, after = getattr(plain, name)[:, :, 0], getattr(noisy, name)[:, :, 0]
        change = (after - before).square().sum((-2, -1)) / before.square().sum((-2, -1))
        torch.testing.assert_close(
            change.mean(0).sqrt(), torch.full((2,), PERTURBATIONS[variant]).double(), rtol=0.1, atol=0
        )
        assert not (after - before)[:, ~relevant].any()


def test_a_mixture_is_one_in_function_space():
    majority, minority = (
        build(name, 3, draw_constants(name, 3, True, MEMBERS, name)) for name in ("td0", "monte-carlo")
    )
    prompt = reference_prompt(LAYOUT, 5)
    f, g = majority.predict(prompt), minority.predict(prompt)
    mixed = Mixture(majority, minority, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)).predict(prompt)
    torch.testing.assert_close(mixed, torch.stack([f[0], 0.7 * f[1] + 0.3 * g[1], g[2]]), rtol=1e-10, atol=1e-12)


def labelled(subject, name, learner, folder, *, n_steps=3, looped=True, exact=False):
    members = len(learner.step_size)
    prompts = reference_prompts(SOURCE, VALUE_ESTIMATORS.context_length, LAYOUT)
    return label(
        subject, name, learner, prompts, n_steps=n_steps, looped=looped, exact=[exact] * members, folder=folder
    )  # fmt: skip


def td0(*step_sizes, n_steps=3):
    gamma = torch.full((len(step_sizes), 1), 0.8, dtype=torch.float64)
    return build(
        "td0", n_steps, {"step_size": torch.tensor(step_sizes, dtype=torch.float64)[:, None, None], "gamma": gamma}
    )


def test_an_exact_network_has_its_learner_alone_or_the_class_that_is_one_function(tmp_path):
    assert labelled(td0(1.0), "td0", td0(1.0), tmp_path, exact=True).right == ({"td0"},)
    single = td0(1.0, n_steps=1)
    assert labelled(single, "td0", single, tmp_path, n_steps=1, exact=True).right == (one_function("td0", 1),)


def test_close_by_the_richer_learners_are_right_too(tmp_path):
    found = labelled(td0(1.0, 1.0), "td0", td0(1.02, 1.1), tmp_path)
    assert found.right == ({"td0", *richer(3, True)["td0"]},) * 2
    assert 0 < found.noise[0] < found.noise[1] <= labels.SAME


def test_learners_whose_constants_moved_are_found_by_a_refit_once(tmp_path, monkeypatch):
    moved, blind = td0(1.0), build("myopic", 3, {"step_size": torch.full((1, 1, 1), 1.5, dtype=torch.float64)})
    first = labelled(moved, "td0", td0(1.6), tmp_path)
    assert first.noise[0] > labels.OTHER
    assert first.right == ({"td0", *richer(3, True)["td0"]},)
    outsider = labelled(moved, "myopic", blind, tmp_path)
    assert "td0" in outsider.right[0]
    assert "myopic" not in outsider.right[0]
    monkeypatch.setattr(labels, "fit_bank", None)  # what was fitted is not fitted again
    assert labelled(moved, "td0", td0(1.6), tmp_path) == first


def test_within_the_noise_a_simpler_learner_is_right_too_but_not_strictly(tmp_path):
    """At a discount of .05 the myopic learner is nearer to TD(0) than noise of half a per cent is."""
    planted = build("td0", 3, {"step_size": torch.ones(2, 1, 1).double(), "gamma": torch.full((2, 1), 0.05).double()})
    other = build("lstd", 3, {"gamma": 0.9})
    noisy = Mixture(planted, other, torch.tensor([0.06, 1e-4], dtype=torch.float64))
    found = labelled(noisy, "td0", planted, tmp_path)
    assert found.noise[1] < 1e-5 < 1e-4 < found.noise[0] <= labels.SAME
    assert ["myopic" in right for right in found.right] == [True, False]
    assert all("myopic" not in strict for strict in found.strict)


def test_what_is_near_no_rival_has_no_right_name(tmp_path, monkeypatch):
    blind = context_blind([0, 1], 4)
    far = labelled(blind, "td0", td0(1.0, 1.0), tmp_path)
    assert (far.right, far.borderline) == ((frozenset(),) * 2, (False,) * 2)
    monkeypatch.setattr(labels, "OTHER", math.inf)
    between = labelled(blind, "td0", td0(1.0, 1.0), tmp_path)
    assert (between.right, between.borderline) == (({"td0", *richer(3, True)["td0"]},) * 2, (True,) * 2)


def test_what_diverges_has_no_right_name(tmp_path):
    wild = td0(60.0, n_steps=8)
    assert labelled(wild, "td0", wild, tmp_path, n_steps=8, exact=True).right == (frozenset(),)


def test_shuffled_rewards_are_the_same_rewards_in_another_order():
    source = TaskFamily()
    before, after = (s.rollouts([0, 1], 3, 2, 2, 40) for s in (source, ShuffledRewards(source)))
    assert torch.equal(before.features, after.features)
    assert after.values is None
    assert torch.equal(before.rewards.sort(-1).values, after.rewards.sort(-1).values)
    assert ((before.rewards != after.rewards).double().mean(-1) > 0.5).all()
    assert torch.equal(ShuffledRewards(source).rollouts([1], 3, 2, 2, 40).rewards[0], after.rewards[1])


def test_blind_weights_are_the_best_that_no_context_moves():
    blind = context_blind([7], 4)
    family = TaskFamily(fixed=("features", "reward"))
    prompt = family.fresh_prompt([7], "check", 0, 400, 5, LAYOUT)
    error = square_mean(prompt.answers - blind.predict(prompt), prompt).mean()
    assert error < 0.9 * square_mean(prompt.answers, prompt).mean()
    for change in (0.8, 1.25):
        assert error < square_mean(prompt.answers - change * blind.predict(prompt), prompt).mean()
    silent = replace(prompt, tokens=torch.where(prompt.is_context[:, None], 0.0, prompt.tokens))
    assert torch.equal(blind.predict(prompt), blind.predict(silent))


def test_a_sharp_smoother_returns_the_reward_of_the_nearest_neighbour():
    config = LinearTransformerConfig(1, True, 4, activation="softmax")
    model = smoother(config, [0], "test", sharpness=(1e5, 1e5))
    prompt = reference_prompt(LAYOUT, 5)
    phi, reward = prompt.context[..., :4], prompt.context[..., -1]
    nearest = (prompt.query_tokens[..., :4] @ phi.mT).argmax(-1)
    ratio = predict(model, prompt)[..., 0] / reward.gather(-1, nearest)
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio.flatten()[0].detach())), rtol=1e-8, atol=0)
    assert 0.4 < ratio.flatten()[0] < 1


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> tuple[list[Planted], list[Planted]]:
    """Built twice, the second time from what the first has left; shallow, and the students are far from done."""
    folder = tmp_path_factory.mktemp("planted")
    size = replace(VALUE_ESTIMATORS.sizes["smoke"], student_steps=20)
    small = replace(VALUE_ESTIMATORS, sizes={"smoke": size}, deepest={True: 3, False: 2})
    with pytest.MonkeyPatch.context() as patch:  # other processes would check no shapes
        patch.setattr(planted, "in_parallel", lambda function, jobs, *_: [function(*job) for job in jobs])
        patch.setattr(labels, "REFERENCE_TASKS", 48)
        labels._reference_prompt.cache_clear()
        first, second = (plant(small, "calibration", "smoke", folder) for _ in range(2))
    labels._reference_prompt.cache_clear()
    return first, second


def test_the_population_holds_every_kind(smoke):
    built, _ = smoke
    assert len({ensemble.kind for ensemble in built}) >= 14
    assert 30 <= sum(len(ensemble.right) for ensemble in built) <= 60
    for ensemble in built:
        prompt = reference_prompt(ensemble.layout, 3)
        with torch.no_grad():
            predictions = predict(ensemble.subject, prompt)
        n = len(predictions)
        assert predictions.shape == (n, 3, 10, 1)
        assert predictions.isfinite().all()
        assert len(ensemble.variant) == len(ensemble.right) == len(ensemble.noise) == len(ensemble.borderline) == n
        if ensemble.learner is None:
            assert not any(ensemble.right)
            assert all(map(math.isnan, ensemble.noise))
        for variant, right, noise in zip(ensemble.variant, ensemble.right, ensemble.noise, strict=True):
            if variant in EXACT:
                assert noise < 1e-20
                assert right == (one_function("td0", 1) if ensemble.kind == "one-step" else {ensemble.kind})
            if variant in PERTURBATIONS:
                assert noise > 1e-8


def test_a_second_build_finds_the_same(smoke):
    first, second = smoke
    prompt = reference_prompt(LAYOUT, 3)
    for a, b in zip(first, second, strict=True):
        assert (a.kind, a.variant, a.right, a.borderline) == (b.kind, b.variant, b.right, b.borderline)
        if a.layout == LAYOUT:
            assert torch.equal(predict(a.subject, prompt), predict(b.subject, prompt))


def test_unknown_splits_and_sizes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'calibration'"):
        plant(VALUE_ESTIMATORS, "calibrate", "smoke", tmp_path)
    with pytest.raises(ConfigError, match="size is 'big'"):
        plant(VALUE_ESTIMATORS, "report", "big", tmp_path)
