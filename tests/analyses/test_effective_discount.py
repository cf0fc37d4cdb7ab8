"""The discount puzzle: what TD++ is, what lesions take away, and that the optima of the objectives are fixed points."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import analyses.effective_discount
import analyses.optimum
import analyses.parallel
from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import TD0, transitions
from analyses.configs import ANALYSES, EffectiveDiscount, Objective, SubjectSettings
from analyses.effective_discount import discounts, lesions, run, summarise, unstable_tasks, weights_learners
from analyses.optimum import SAMPLES, gauss_newton, learner_of, objective, optimum, tasks_and_prompt
from analyses.subjects import varied
from analyses.tables import select, tidy
from figures import effective_discount
from models.config import ConfigError, LinearTransformerConfig
from models.constructions import td0
from models.linear import LinearTransformer
from probes.behaviour import predict

SMALL = SubjectSettings(d_features=2, n_states=4, context_length=8)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.effective_discount, "FITTING_TASKS", 16)
        patch.setattr(analyses.effective_discount, "HELD_OUT_TASKS", 16)
        patch.setattr(analyses.optimum, "TASKS_PER_SAMPLE", 20)
        patch.setattr(analyses.optimum, "MAX_STEPS", 2)
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return tiny(out)


def tiny(out: Path) -> Mapping[str, pd.DataFrame]:
    small = {"d_features": 2, "n_states": 4, "context_length": 6, "train_tasks": 20, "out": out}
    return run(replace(ANALYSES["effective-discount"].preset("smoke"), **small))


def test_td_plus_plus_is_td_with_its_discount_preconditioned_in_context(make_prompt) -> None:
    """w_{l+1} = w_l + alpha M_l^T (b - A w_l) with TD(0)'s A and b, and M_{l+1} = (I + gamma K_l) M_l."""
    prompt, gamma, alpha, (from_features, from_next) = make_prompt(tasks=4), 0.7, 1.3, (-0.6, 0.4)
    trace = TDPlusPlus(4, alpha, gamma, from_features, from_next)(prompt)
    phi, slot, _ = transitions(prompt)
    A, b = TD0(4, alpha, gamma).moments(transitions(prompt))
    identity = torch.eye(phi.shape[-1], dtype=phi.dtype)
    M, w, n = identity, torch.zeros_like(b), phi.shape[-2]
    assert trace.weights is not None
    for step in range(4):
        w = w + alpha * (M.mT @ (b - (A @ w[..., None])[..., 0])[..., None])[..., 0]
        assert (w - trace.weights[step + 1]).abs().max() < 1e-10
        K = from_features * phi.mT @ phi / n + from_next * slot.mT @ phi / n
        slot = slot + (gamma * slot - phi) @ K.mT
        M = (identity + gamma * K) @ M
    without = TD0(4, alpha, gamma)(prompt).weights
    assert without is not None
    assert (without[-1] - w).abs().max() > 1e-3  # the negative control: the preconditioner matters


def test_the_weights_of_a_construction_spell_out_its_learner(make_prompt) -> None:
    identity = torch.eye(3, dtype=torch.float64)
    network = td0(
        torch.tensor([0.4, 0.9], dtype=torch.float64)[:, None, None, None] * identity, n_layers=3, gamma_eff=0.6
    )
    prompt = make_prompt()
    for learner in weights_learners(network):
        torch.testing.assert_close(learner.predict(prompt), predict(network, prompt), atol=1e-10, rtol=0)


def test_the_lesion_leaves_td_and_the_noise_is_as_large_as_what_the_lesion_takes(make_network) -> None:
    network = make_network(LinearTransformerConfig(n_layers=3, looped=False, d_features=2))
    changed = lesions(network)
    change = {name: other.P.detach() - network.P.detach() for name, other in changed.items()}
    assert not change["intact"].any()
    assert not changed["lesion"].P[..., :-1, :].any()
    for name in ("lesion", "noise"):
        assert not change[name][..., -1, :].any()
        assert torch.equal(changed[name].Q, network.Q)
    norms = {name: value.norm(dim=(-2, -1)) for name, value in change.items()}
    torch.testing.assert_close(norms["noise"], norms["lesion"], atol=1e-10, rtol=0)


def test_a_lesioned_td_plus_plus_network_is_the_td_of_its_weights(make_prompt) -> None:
    """The claim in miniature: rewriting rows on top of TD(0) change the function, and their lesion takes it back."""
    plain = td0(1.2 * torch.eye(3, dtype=torch.float64)[None, None], n_layers=3, gamma_eff=0.6)
    P = plain.P.detach().clone()
    rows = plain.layout.block(P, "next_features", "features")
    rows.diagonal(dim1=-2, dim2=-1)[:] = -0.4
    rewriting, prompt = LinearTransformer(plain.config, P, plain.Q.detach()), make_prompt()
    td, plus = weights_learners(rewriting)
    after = predict(lesions(rewriting)["lesion"], prompt)
    torch.testing.assert_close(plus.predict(prompt), predict(rewriting, prompt), atol=1e-10, rtol=0)
    torch.testing.assert_close(td.predict(prompt), after, atol=1e-10, rtol=0)
    assert (predict(rewriting, prompt) - after).abs().max() > 1e-3


def test_unstable_tasks_are_those_on_which_td_explodes(make_prompt) -> None:
    prompt = make_prompt(tasks=40)
    alpha = torch.tensor([0.1, 4.0, 100.0], dtype=torch.float64)[:, None]
    share = unstable_tasks(TD0(3, alpha[..., None], torch.full_like(alpha, 0.5)), prompt)
    largest = TD0(100, alpha[..., None], torch.full_like(alpha, 0.5)).predict(prompt).abs().amax((-2, -1))
    torch.testing.assert_close(share, (largest > 1e3).double().mean(-1), atol=0.1, rtol=0)
    assert share[0] == 0
    assert share[2] == 1


@pytest.mark.parametrize(
    ("name", "objective_name"), [("td-plus-plus", "td"), ("td0", "td"), ("td0", "true-value"), ("td0", "monte-carlo")]
)
def test_the_optimum_is_where_training_has_nothing_left_to_change(
    monkeypatch: pytest.MonkeyPatch, name: str, objective_name: Objective
) -> None:
    """The semi-gradient, by automatic differentiation, vanishes there and not beside it."""
    monkeypatch.setattr(analyses.optimum, "TASKS_PER_SAMPLE", 100)
    settings = SubjectSettings(objective=objective_name)
    theta = torch.stack(list(optimum(settings, name).values()), -1)
    arrived = theta.isfinite().all(-1)
    assert arrived.sum() >= 3
    process, prompt = tasks_and_prompt(settings)
    target, bootstrap = objective(settings, process)

    def semi_gradient(at: Tensor) -> Tensor:
        at = at.clone().requires_grad_()
        v = learner_of(name, settings.n_layers, at).predict(prompt)[..., 0]
        aim = (target + (bootstrap @ v[..., None])[..., 0]).detach()
        loss = (prompt.weights * (aim - v).square()).sum((1, 2)) / 2
        (gradient,) = torch.autograd.grad(loss.sum(), at)
        return gradient[arrived].abs().amax()

    assert semi_gradient(theta) < 1e-7
    assert semi_gradient(theta + 0.01) > 1e-4


def test_the_optimum_of_one_step_on_true_values_has_a_closed_form() -> None:
    """v = alpha x with x = phi_q . E[R phi]: alpha = E v* x / E x^2; the discount of one step cannot matter."""
    settings = replace(SMALL, n_layers=1, objective="true-value")
    _, prompt = tasks_and_prompt(settings)
    x = TD0(1, 1.0, 0.5).predict(prompt)
    weighted = prompt.weights[..., None] * x
    best = (weighted * prompt.answers).sum((1, 2, 3)) / (weighted * x).sum((1, 2, 3))
    step = gauss_newton(
        lambda alpha: TD0(1, alpha[:, None], 0.5).predict(prompt)[..., 0],
        torch.full((SAMPLES, 1), 0.3, dtype=torch.float64),
        prompt.answers[..., 0],
        torch.zeros(*x.shape[:2], x.shape[2], x.shape[2], dtype=torch.float64),
        prompt.weights,
    )
    torch.testing.assert_close(0.3 + step[:, 0], best, atol=1e-10, rtol=0)


def test_every_variation_has_every_estimate(tables: Mapping[str, pd.DataFrame]) -> None:
    constants = tables["constants"]
    for subject, gamma in (("baseline", 0.9), ("gamma=0.5", 0.5)):
        mine = select(constants, subject=subject, metric="gamma")
        assert mine["gamma"].eq(gamma).all()
        assert set(mine["source"]) == {"weights", "predictions", "objective"}
        assert set(select(mine, source="predictions")["condition"]) == {"intact", "lesion", "noise"}
    conditions = tables["conditions"]
    assert select(conditions, metric="disagreement")["value"].ge(0).all()
    assert set(select(conditions, learner="subject")["metric"]) == {"skill"}
    assert set(tables["training"]["task_count"]) == {10, 20}


def test_only_seeds_that_bootstrap_count() -> None:
    axes = {"subject": ["baseline"], "seed": [0, 1, 2]}
    labels = {"gamma": 0.9, "condition": "intact", "learner": "td0"}
    values = tidy([[0.6, 0.8, 5.0]], axes, metric="gamma", source="weights", **labels)
    optima = tidy([[0.7, np.nan, 0.9]], axes, metric="gamma", source="objective", **labels)
    flags = tidy([[1, 1, 0]], axes, metric="bootstraps")
    table = discounts(pd.concat([values, optima], ignore_index=True), flags).set_index("source")
    assert table.loc["weights", "value"] == pytest.approx(0.7)
    assert table.loc["objective", "value"] == pytest.approx(0.8)
    assert table["n_seeds"].tolist() == [2, 2]
    # Student's t with one degree of freedom: 12.706 standard errors of 0.1
    assert table.loc["weights", "high"] == pytest.approx(0.7 + 12.706 * 0.1, abs=1e-4)


def test_the_figure_and_the_summary_need_only_the_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    assert "baseline" in summarise(tables)
    assert "No seed of the baseline bootstraps" in summarise(tables)  # twenty tasks are too few
    assert len(effective_discount.draw(tables).get_axes()) >= 4


def test_the_summary_of_networks_that_bootstrap(tables: Mapping[str, pd.DataFrame]) -> None:
    flags = tables["seeds"].assign(value=tables["seeds"]["value"].where(tables["seeds"]["metric"] != "bootstraps", 1.0))
    text = summarise({**tables, "seeds": flags, "discounts": discounts(tables["constants"], flags)})
    assert "The network is not shown to be TD++" in text
    assert "2/2" in text


def test_what_has_no_effective_discount_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'softmax' on 'boyan-chain' has no effective discount"):
        run(EffectiveDiscount(activation="softmax", out=tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'gamma'"):
        run(EffectiveDiscount(variations=("gama=0.5",), out=tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("looped=1", "looped is '1'; allowed: true or false"),
        ("n_layers=2.5", "n_layers is '2.5'; allowed: a whole number of at least 1"),
        ("weight_decay=-1", "weight_decay is '-1'; allowed: a number of at least 0"),
        ("objective=mc", "allowed: td, true-value, monte-carlo"),
        ("seeds=3", "the setting of a variation is 'seeds'"),
    ],
)
def test_a_variation_that_cannot_be_is_named(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        varied(SMALL, change)


def test_a_variation_changes_one_setting() -> None:
    assert varied(SMALL, "looped=false") == replace(SMALL, looped=False)
    assert varied(SMALL, "gamma=0.5") == replace(SMALL, gamma=0.5)
    assert varied(SMALL, "weight_decay=0") == replace(SMALL, weight_decay=0.0)
