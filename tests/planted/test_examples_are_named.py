"""Networks of labelled tokens and of states whose algorithm is known: random ones have no name."""

from typing import Any

import pytest
import torch

from algorithms.gradient_descent import optimal_preconditioner
from analyses.answer import render
from analyses.inspect import report
from models import causal_constructions
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from tasks.layout import labelled_layout
from tasks.streams import normals

pytestmark = pytest.mark.usefixtures("behaviour_alone")

TASKS: dict[str, Any] = {"fitting_tasks": 24, "held_out_tasks": 40}
D, L = 3, 3


def network(A: torch.Tensor, rewrite: float = 0.0, noise: float = 0.0) -> LinearTransformer:
    """P and Q with preconditioners A [layers, d, d], one seed."""
    layout, identity = labelled_layout(D), torch.eye(D, dtype=torch.float64)
    P, Q = (torch.zeros(1, len(A), 1, D + 1, D + 1, dtype=torch.float64) for _ in range(2))
    layout.block(P, "label", "label")[:] = 1.0
    layout.block(P, "features", "features")[:] = rewrite * identity
    layout.block(Q, "features", "features")[:] = -A.mT[None, :, None].double()
    draws = noise * normals([0], "test/noise", 0, 2, *P.shape[1:]).double()
    return LinearTransformer(
        LinearTransformerConfig(len(A), False, D, tokens="labelled"), P + draws[:, 0], Q + draws[:, 1]
    )


def said(model: LinearTransformer) -> tuple[str, list[str]]:
    told = report(model, "linear-regression", **TASKS)
    assert "Answer: " in render(told)
    return told["verdict"]["outcome"], told["verdict"]["learners"]


STEPS = torch.tensor([0.5, 0.7, 0.9])[:, None, None] * torch.eye(D)
MIXED = torch.tensor([[1.0, 0.3, 0.0], [0.1, 0.6, 0.2], [0.0, 0.4, 1.2]])


def test_gradient_descent_and_its_relatives_are_told_apart():
    assert said(network(STEPS)) == ("identified", ["gd"])
    assert said(network(0.8 * STEPS @ MIXED)) == ("identified", ["preconditioned-gd"])
    assert said(network(STEPS, rewrite=0.4)) == ("identified", ["gd-plus-plus"])


def test_one_layer_is_one_function():
    averaging = said(network(STEPS[:1]))
    assert averaging == ("identified", ["averaging", "gd", "preconditioned-gd", "gd-plus-plus"])
    optimum = optimal_preconditioner(torch.diag(torch.tensor([1.0, 0.25, 0.0625])), 20)
    assert said(network(optimum[None])) == ("identified", ["preconditioned-gd", "gd-plus-plus"])


@pytest.mark.parametrize("seed", range(3))
def test_a_random_network_has_no_name(seed):
    draws = 0.5 * normals([seed], "test/random", 0, 2, L, 1, D + 1, D + 1).double()
    config = LinearTransformerConfig(L, False, D, tokens="labelled")
    assert said(LinearTransformer(config, draws[:, 0].clone(), draws[:, 1].clone()))[0] == "none"


@pytest.mark.parametrize(
    ("task", "model", "named"),
    [
        ("unitary-autoregression", causal_constructions.element_product(3, 8), ["two-token"]),
        ("orthogonal-autoregression", causal_constructions.trace_relation(4, 8), ["two-token"]),
        (
            "unitary-autoregression",
            causal_constructions.gradient_step(torch.tensor([0.3]), 3),
            ["averaging", "gd", "preconditioned-gd", "gd-plus-plus"],
        ),
    ],
)
def test_autoregression(task, model, named):
    told = report(model, task, context_length=8, fitting_tasks=12, held_out_tasks=30)
    assert (told["verdict"]["outcome"], told["verdict"]["learners"]) == ("identified", named)
    assert "Answer: identified" in render(told)
