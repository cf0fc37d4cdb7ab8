"""Networks whose algorithm is known: inspection names it, or says none; never a wrong learner."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from algorithms.bank import one_function
from analyses.answer import render
from analyses.inspect import report
from models import constructions
from models.config import LinearTransformerConfig, Mask
from models.linear import LinearTransformer
from tasks.streams import normals, uniforms

pytestmark = pytest.mark.usefixtures("behaviour_alone")

D = 4
TASKS: dict[str, Any] = {"fitting_tasks": 20, "held_out_tasks": 40}


def step_sizes(n_layers, looped, high, seeds=2):
    """Random alpha I [seeds, layers, d, d] between a fifth of `high` and `high`."""
    alpha = high * (0.2 + 0.8 * uniforms(range(seeds), "alpha", n_layers, 1 if looped else n_layers)).double()
    return alpha[..., None, None] * torch.eye(D, dtype=torch.float64)


def found(model, **options):
    seeds = report(model, "boyan-chain", **TASKS, **options)["seeds"]
    return [(seed["outcome"], tuple(seed["learners"])) for seed in seeds]


# the learner, its network, and a step size that is stable on nearly all Boyan chains
PLANTED = {
    "td0": (constructions.td0, 2.0, {"gamma_eff": 0.8}),
    "td-lambda": (constructions.td_lambda, 1.0, {"lam": 0.5}),
    "residual-gradient": (constructions.residual_gradient, 1.0, {}),
    "average-reward-td": (constructions.average_reward_td, 1.0, {}),
    "myopic": (constructions.myopic, 2.0, {}),
}


@pytest.mark.parametrize("learner", PLANTED)
def test_a_construction_of_separate_layers_is_named(learner):
    """Looped ones are drawn at random in test_recovery.py."""
    construct, high, options = PLANTED[learner]
    model = construct(step_sizes(3, False, high), n_layers=3, **options)
    assert found(constructions.rescaled(model, -0.5)) == [("identified", (learner,))] * 2


def test_a_construction_stored_as_float32_is_named():
    model = constructions.rescaled(constructions.td0(step_sizes(8, True, 2.0), n_layers=8), -1.7).float()
    assert found(model) == [("identified", ("td0",))] * 2


def test_eight_separate_layers():
    model = constructions.td0(step_sizes(8, False, 2.0, seeds=1), n_layers=8)
    assert found(model) == [("identified", ("td0",))]


def test_a_random_preconditioner_is_not_a_scalar():
    C = step_sizes(3, False, 1.5)
    C = C @ (torch.eye(D, dtype=torch.float64) + 0.3 * normals([0, 1], "C", 0, C.shape[1], D, D).double())
    assert found(constructions.td0(C, n_layers=3)) == [("identified", ("preconditioned-td",))] * 2


def test_at_one_layer_the_class_is_named():
    C = step_sizes(1, True, 2.0)
    for construct in (constructions.td0, constructions.myopic):
        ((outcome, learners), *_) = found(construct(C, n_layers=1))
        assert outcome == "identified"
        assert set(learners) == one_function("td0", 1)


@pytest.mark.parametrize(("scale", "looped"), [(0.05, False), (0.2, True), (0.5, False)])
def test_random_networks_run_nothing_known(make_network, scale, looped):
    config = LinearTransformerConfig(n_layers=3, looped=looped, d_features=D)
    assert found(make_network(config, scale=scale)) == [("none", ())] * 2


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_other_activations_are_compared_too(make_network, activation):
    config = LinearTransformerConfig(n_layers=2, looped=True, d_features=D, activation=activation)
    assert found(make_network(config)) == [("none", ())] * 2


def test_shuffled_weights_run_nothing_known():
    """The entries of a TD(0) network in another order; where nothing is written into the read-out it predicts zero."""
    model = constructions.td0(step_sizes(3, True, 2.0, seeds=4), n_layers=3)

    def shuffled(weights):
        orders = [draw.flatten().argsort() for draw in uniforms(range(4), f"shuffle {weights.mean()}", 0, 81)]
        return torch.stack([w.flatten()[order].view_as(w) for w, order in zip(weights, orders, strict=True)])

    P = shuffled(model.P.detach())
    P[2:, 0, 0, -1] = P[2:, 0, 0, :-1].sum(-2)  # two of them write into the read-out
    outcomes = found(LinearTransformer(model.config, P, shuffled(model.Q.detach())))
    assert all(outcome in (("none", ()), ("identified", ("zero",))) for outcome in outcomes)
    assert ("none", ()) in outcomes


def test_a_perturbed_construction_is_never_another_learner():
    model = constructions.td0(step_sizes(3, True, 2.0, seeds=4), n_layers=3)
    P, Q = (
        w + 0.1 * w.norm() / w.numel() ** 0.5 * normals(range(4), "noise", 0, *w.shape[1:])
        for w in (model.P.detach(), model.Q.detach())
    )
    for outcome, learners in found(LinearTransformer(model.config, P, Q)):
        assert outcome != "identified" or learners == ("td0",)


def test_diverging_networks_are_none():
    told = report(constructions.td0(step_sizes(8, True, 60.0), n_layers=8), "boyan-chain", **TASKS)
    assert (told["verdict"]["outcome"], told["verdict"]["learners"]) == ("none", [])
    assert min(told["subject"]["diverged"]) > 0.9
    assert "diverges" in render(told)


def test_readings_that_make_no_sense_are_null():
    model = constructions.average_reward_td(step_sizes(3, True, 1.0, seeds=1), n_layers=3)
    told = report(model, "boyan-chain", **TASKS)
    assert told["weights"]["alpha_eff"] == [[None]]
    assert told["seed_disagreement"] is None
    assert "average-reward-td" in render(told)


def test_the_masks_of_the_config_are_part_of_the_network():
    """The same P and Q behind another mask are another learner."""
    model = constructions.td0(step_sizes(3, True, 1.0), n_layers=3)
    config = replace(model.config, masks=(Mask("query", 0.6),))
    assert found(LinearTransformer(config, model.P.detach(), model.Q.detach())) == [("identified", ("td-lambda",))] * 2
