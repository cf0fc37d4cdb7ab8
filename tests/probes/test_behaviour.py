"""The published scores by their formulas, the theorem that two of them coincide, and the comparison with rivals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from algorithms.bank import RIVALS, build
from algorithms.fit import disagreement
from algorithms.temporal_difference import TD0
from models import constructions
from models.config import ACTIVATIONS, LinearTransformerConfig, Mask
from probes.behaviour import (
    Interval,
    compare,
    implicit_weight_similarity,
    median_interval,
    predict,
    query_gradients,
    sensitivity_similarity,
    task_interval,
    value_difference,
)

TWO_MASKS = (Mask("query", 0.4), Mask("centred"))


@pytest.mark.parametrize("looped", [True, False])
@pytest.mark.parametrize("masks", [(Mask(),), TWO_MASKS])
def test_iws_and_ss_are_one_number_for_linear_attention(make_prompt, make_network, looped, masks):
    """For any P and Q: the prediction is exactly linear in the query's features."""
    config = LinearTransformerConfig(n_layers=3, looped=looped, d_features=3, masks=masks)
    network, prompt = make_network(config), make_prompt(tasks=4)
    reference = TD0(3)
    iws = implicit_weight_similarity(network, reference, prompt)
    assert iws.shape == (2, 4)
    torch.testing.assert_close(sensitivity_similarity(network, reference, prompt), iws, atol=1e-10, rtol=0)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "linear"])
def test_iws_and_ss_differ_for_other_activations(make_prompt, make_network, activation):
    network = make_network(LinearTransformerConfig(n_layers=2, looped=True, d_features=3, activation=activation))
    prompt = make_prompt(tasks=3)
    iws, ss = (score(network, TD0(2), prompt) for score in (implicit_weight_similarity, sensitivity_similarity))
    assert (iws - ss).abs().max() > 1e-3


def test_the_scores_of_td_against_itself(make_prompt):
    prompt, learner = make_prompt(tasks=3), TD0(3, 0.8, 0.7)
    network = constructions.td0(0.8 * torch.eye(3, dtype=torch.float64)[None, None], n_layers=3, gamma_eff=0.7)
    one = torch.ones(1, 3, dtype=torch.float64)
    torch.testing.assert_close(value_difference(network, learner, prompt), 0 * one, atol=1e-12, rtol=0)
    torch.testing.assert_close(implicit_weight_similarity(network, learner, prompt), one, atol=1e-10, rtol=0)
    torch.testing.assert_close(sensitivity_similarity(network, learner, prompt), one, atol=1e-10, rtol=0)


def test_the_scores_by_their_formulas(make_prompt):
    prompt = make_prompt(tasks=1)
    subject, reference = build("monte-carlo", 3), TD0(3)
    d_p, phi = prompt.weights[0, 0], prompt.layout.read(prompt.query_tokens, "features")[0, 0]
    v, v_td = (learner.predict(prompt)[0, 0, :, 0] for learner in (subject, reference))
    assert value_difference(subject, reference, prompt).item() == pytest.approx((d_p * (v - v_td) ** 2).sum().item())
    # normal equations of the d_p-weighted fit
    w, w_td = (torch.linalg.solve(phi.T @ (d_p[:, None] * phi), phi.T @ (d_p * values)) for values in (v, v_td))
    cosine = (w @ w_td / w.norm() / w_td.norm()).item()
    assert implicit_weight_similarity(subject, reference, prompt).item() == pytest.approx(cosine)
    assert abs(cosine) < 0.999


def test_ss_weighs_every_state_by_the_stationary_distribution(make_prompt, make_network):
    network = make_network(
        LinearTransformerConfig(n_layers=2, looped=True, d_features=3, activation="softmax"), seeds=1
    )
    prompt = make_prompt(tasks=1)
    gradients, w = query_gradients(network, prompt)[0, 0], query_gradients(TD0(2), prompt)[0, 0, 0]
    cosines = gradients @ w / gradients.norm(dim=-1) / w.norm()
    expected = (prompt.weights[0, 0] * cosines).sum().item()
    assert sensitivity_similarity(network, TD0(2), prompt).item() == pytest.approx(expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_query_gradients_are_derivatives(make_prompt, make_network, activation):
    network = make_network(LinearTransformerConfig(n_layers=2, looped=True, d_features=3, activation=activation))
    prompt = make_prompt(tasks=2)
    gradients = query_gradients(network, prompt)
    assert gradients.shape == (2, 2, len(prompt.queries), 3)
    tokens, query, feature, step = prompt.tokens, int(prompt.queries[1]), 2, 1e-6

    def moved(sign):
        shifted = tokens.clone()
        shifted[:, :, query, feature] += sign * step
        return predict(network, replace(prompt, tokens=shifted))[:, :, 1, 0]

    numeric = (moved(1) - moved(-1)) / (2 * step)
    torch.testing.assert_close(gradients[:, :, 1, feature], numeric.detach(), atol=1e-7, rtol=1e-6)


def test_the_zero_predictor_has_no_direction(make_prompt):
    prompt = make_prompt(tasks=2)
    assert (query_gradients(build("zero", 3), prompt) == 0).all()
    assert (implicit_weight_similarity(build("zero", 3), TD0(3), prompt) == 0).all()
    assert (sensitivity_similarity(build("zero", 3), TD0(3), prompt) == 0).all()


def test_comparison(make_prompt):
    prompt = make_prompt(tasks=6)
    C = torch.tensor([0.5, 0.9], dtype=torch.float64)[:, None, None, None] * torch.eye(3, dtype=torch.float64)
    subject = constructions.td0(C, n_layers=3)
    own = {"step_size": torch.tensor([[[0.5]], [[0.9]]], dtype=torch.float64)}
    rivals = {name: build(name, 3, own if name == "td0" else None) for name in ("td0", "myopic", "zero")}
    found = compare(subject, rivals, prompt)
    assert found.disagreement["td0"].max() < 1e-24
    assert (found.disagreement["myopic"] > 1e-3).all()
    torch.testing.assert_close(found.disagreement["zero"], torch.ones(2, 6, dtype=torch.float64))
    # the subject is the td0 rival, so rival distances from td0 are the subject's disagreements
    torch.testing.assert_close(found.distance["td0"]["myopic"], found.disagreement["myopic"].nanquantile(0.5, -1))
    assert found.distance["zero"]["td0"].isnan().all()
    torch.testing.assert_close(found.skill, found.rival_skill["td0"])
    assert (found.rival_skill["zero"] == 0).all()
    assert found.seed_disagreement == pytest.approx(seed_disagreement(subject, prompt))
    assert compare(rivals["myopic"], {"zero": rivals["zero"]}, prompt).seed_disagreement is None


def test_the_median_of_an_even_number_of_tasks_lies_between_the_middle_two(make_prompt):
    prompt, rivals = make_prompt(tasks=2), {"td0": TD0(3), "myopic": build("myopic", 3)}
    found = compare(TD0(3, 0.4), rivals, prompt)
    expected = disagreement(rivals["td0"].predict(prompt), rivals["myopic"].predict(prompt), prompt)
    assert expected[0, 0] != expected[0, 1]
    torch.testing.assert_close(found.distance["td0"]["myopic"][0], expected.mean())


def seed_disagreement(subject, prompt):
    first, second = predict(subject, prompt).detach()
    both = [disagreement(f[None], g[None], prompt)[0] for f, g in ((first, second), (second, first))]
    return torch.cat(both).nanquantile(0.5).item()


def test_diverging_tasks_are_left_out_and_counted(make_prompt):
    prompt = make_prompt(tasks=6)

    class Diverging:
        def predict(self, prompt):
            values = TD0(3).predict(prompt).clone()
            values[:, 0], values[:, 1] = torch.nan, 1e12
            return values

    found = compare(Diverging(), {"td0": TD0(3), "zero": build("zero", 3)}, prompt)
    assert found.diverged.tolist() == pytest.approx([2 / 6])
    assert found.disagreement["td0"].isnan()[0].tolist() == [True, True, False, False, False, False]
    assert found.rival_diverged["td0"].item() == 0


def test_every_rival_gets_every_score(make_prompt):
    prompt = make_prompt(tasks=2)
    for name in RIVALS:
        scores = [s(build(name, 3), TD0(3), prompt) for s in (implicit_weight_similarity, sensitivity_similarity)]
        torch.testing.assert_close(*scores, atol=1e-10, rtol=0)


def test_intervals():
    values = np.random.default_rng(0).lognormal(size=(1, 200))
    interval = task_interval(values)
    assert interval.value == np.median(values)
    assert interval.low < interval.value < interval.high
    assert task_interval(values) == interval
    assert interval.low < 1 < interval.high, "the true median"
    with_gaps = np.concatenate([values, np.full((1, 50), np.nan)], 1)
    assert task_interval(with_gaps).value == interval.value
    assert task_interval(np.ones((1, 10))).high == 1
    assert np.isnan(task_interval(np.full((2, 10), np.nan)).value)


def test_seeds_share_the_resampled_tasks():
    """Copies of a seed add no evidence: tasks are resampled, not pairs of seed and task."""
    values = np.random.default_rng(0).lognormal(size=(1, 100))
    assert task_interval(np.repeat(values, 5, 0)) == task_interval(np.repeat(values, 2, 0))


def test_the_interval_of_one_seed_is_exact():
    """At n = 12 the 3rd and the 10th value hold the median with chance 1 - 2 P(fewer than 3 heads of 12) = .961."""
    values = np.random.default_rng(0).permutation(12).astype(float)
    assert median_interval(values) == Interval(5.5, 2.0, 9.0)
    assert np.isnan(median_interval(values[:5]).low)
    assert not np.isnan(median_interval(values[:6]).low)
    draws = np.random.default_rng(1).standard_cauchy((4000, 12))
    covered = [interval.low < 0 < interval.high for interval in map(median_interval, draws)]
    assert abs(np.mean(covered) - (1 - 2 * stats.binom.cdf(2, 12, 0.5))) < 3 * (0.961 * 0.039 / 4000) ** 0.5
