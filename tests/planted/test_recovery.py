"""Learners drawn at random: depth, gauge and constants from a seeded stream. None of them is ever called another."""

from typing import Any

import pytest
import torch

from algorithms.bank import richer
from analyses.answer import render
from analyses.inspect import report
from models import constructions
from models.linear import LinearTransformer
from tasks.streams import normals, uniforms

pytestmark = pytest.mark.usefixtures("behaviour_alone")

D = 4
SEEDS = range(2)
TASKS: dict[str, Any] = {"fitting_tasks": 20, "held_out_tasks": 40}
IDENTITY = torch.eye(D, dtype=torch.float64)


def drawn(purpose, index, low, high):
    """A number per seed."""
    return low + (high - low) * uniforms(SEEDS, purpose, index).double()


def depth(learner, index):
    return 3 + int(6 * uniforms([0], f"depth of {learner}", index))


def step_sizes(index, high):
    """alpha I [seeds, 1, d, d]"""
    return drawn("alpha", index, 0.2 * high, high)[:, None, None, None] * IDENTITY


def in_random_gauge(model, index):
    """Every seed in a gauge of its own: of either sign, magnitude .1 to 10."""
    sign, magnitude = (uniforms(range(model.n_seeds), purpose, index).double() for purpose in ("sign", "magnitude"))
    gauge = (torch.where(sign < 0.5, -1, 1) * 10 ** (2 * magnitude - 1))[:, None, None, None, None]
    return LinearTransformer(model.config, model.P.detach() * gauge, model.Q.detach() / gauge)


def joined(models):
    """One ensemble of networks that differ in weights alone: a single inspection then serves them all."""
    P, Q = (torch.cat([getattr(model, name).detach() for model in models]) for name in "PQ")
    return LinearTransformer(models[0].config, P, Q)


def td_lambda(index, n_layers):
    """A mask belongs to the whole ensemble, so its seeds share lambda."""
    lam = 0.2 + 0.6 * uniforms([0], "lambda", index).item()
    return constructions.td_lambda(step_sizes(index, 1.0), n_layers=n_layers, lam=lam)


def td_plus_plus(index, n_layers):
    """TD(0)'s weights, and in P the rows next_features <- (a features, b next_features)."""
    model = constructions.td0(step_sizes(index, 1.0), n_layers=n_layers)
    with torch.no_grad():
        for column, sign in (("features", -1), ("next_features", 1)):
            block = model.layout.block(model.P[:, :, 0], "next_features", column)
            block.diagonal(dim1=-2, dim2=-1)[:] = sign * drawn(column, index, 0.1, 0.3)[:, None, None]
    return model


def preconditioned(construct):
    def build(index, n_layers):
        noise = 0.3 * normals(SEEDS, "C", index, 1, D, D).double()
        return construct(step_sizes(index, 1.0) @ (IDENTITY + noise), n_layers=n_layers)

    return build


# by learner: the largest step size at which most tasks converge is 2 for TD(0), half of that for most others
PLANTED = {
    "td0": lambda i, n: constructions.td0(step_sizes(i, 2.0), n_layers=n),
    "residual-gradient": lambda i, n: constructions.residual_gradient(step_sizes(i, 1.0), n_layers=n),
    "td-lambda": td_lambda,
    "average-reward-td": lambda i, n: constructions.average_reward_td(step_sizes(i, 1.0), n_layers=n),
    "myopic": lambda i, n: constructions.myopic(step_sizes(i, 2.0), n_layers=n),
    "td-plus-plus": td_plus_plus,
    "preconditioned-td": preconditioned(constructions.td0),
}


# those with a mask or a token of their own; the others fit in one ensemble
ALONE = ("td-lambda", "average-reward-td")
ENSEMBLES = [tuple(name for name in PLANTED if name not in ALONE), *((name,) for name in ALONE)]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("learners", ENSEMBLES, ids=["one-head", *ALONE])
def test_drawn_learners_are_named(learners, index):
    n_layers = depth(learners[0], index)
    model = in_random_gauge(joined([PLANTED[name](index, n_layers) for name in learners]), index)
    seeds = report(model, "boyan-chain", **TASKS)["seeds"]
    expected = [("identified", [name]) for name in learners for _ in SEEDS]
    assert [(seed["outcome"], seed["learners"]) for seed in seeds] == expected


def with_discounts(*gammas):
    models = [constructions.td0(0.5 * IDENTITY[None, None], n_layers=3, gamma_eff=gamma_eff) for gamma_eff in gammas]
    return report(joined(models), "boyan-chain", **TASKS)


def test_td0_with_a_large_discount_is_named():
    seeds = with_discounts(1.2, 1.6, 2.0, 2.5)["seeds"]
    assert [(seed["outcome"], seed["learners"]) for seed in seeds] == [("identified", ["td0"])] * 4


def test_a_discount_beyond_the_bound_is_never_a_richer_learner():
    """TD++ makes up for part of what its own bound and TD(0)'s forbid; that identifies neither."""
    far, told = with_discounts(6.0, 12.0), with_discounts(3.5)
    assert far["rivals"]["td0"]["at_bound"] == told["rivals"]["td0"]["at_bound"] == ["gamma"]
    for seed in (*far["seeds"], *told["seeds"]):
        assert seed["outcome"] == "none" or "td0" in seed["learners"]
    text = render(told)
    assert "against zero, reward-average, myopic" in text


def test_a_preconditioned_learner_that_never_bootstraps_is_said_to_be_one():
    told = report(preconditioned(constructions.myopic)(0, 4), "boyan-chain", **TASKS)
    assert (told["verdict"]["outcome"], told["verdict"]["learners"]) == ("identified", ["preconditioned-td"])
    assert "The fitted gamma of preconditioned-td is 0, so it does not bootstrap." in render(told)
    # the entrywise median of several matrices is no seed's matrix
    assert told["rivals"]["preconditioned-td"]["constants"]["preconditioner"] is None
    own = told["seeds"][1]["rivals"]["preconditioned-td"]["constants"]["preconditioner"]
    assert torch.tensor(own).shape == (1, D, D)


def test_rivals_that_were_not_compared_are_not_called_excluded():
    told = report(constructions.td0(step_sizes(0, 2.0), n_layers=3), "boyan-chain", **TASKS)
    for name in ("lstd", *richer(3, True)["td0"]):
        told["rivals"][name].update(disagreement=None, low=None, high=None)
    told["rivals"]["myopic"]["diverged"] = 0.9
    lines = render(told).splitlines()
    (excluded,) = (line for line in lines if line.startswith("  Excluded"))
    (aside,) = (line for line in lines if line.startswith("  Set aside"))
    assert "zero 1" in excluded
    assert all(name not in excluded for name in ("lstd", "td-plus-plus", "myopic"))
    assert aside == "  Set aside, since they diverge on most of the tasks: myopic."
