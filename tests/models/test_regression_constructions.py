"""The constructions are the learners they are named after, layer by layer, and obey the paper's closed forms."""

import pytest
import torch

from algorithms.gradient_descent import GDPlusPlus, PreconditionedGD, optimal_relu_step
from models.linear import LinearTransformer
from models.regression_constructions import gd_plus_plus, gradient_descent, scaled_identity, scaled_inverse
from probes.lens import residual_stream
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily, covariance_matrix
from tasks.streams import normals

D, L = 3, 3
SIGMA = torch.tensor(covariance_matrix((1.0, 0.5, 0.25), 0), dtype=torch.float64)
STEPS, REWRITES = torch.tensor([[0.3, 0.8, 1.5]]).double(), torch.tensor([[0.9, 0.5, 0.2]]).double()


def prompt(n_tasks: int = 4, n: int = 7):
    return RegressionFamily(D, n_queries=2).fresh_prompt([0], "test", 0, n_tasks, n, labelled_layout(D))


def test_the_sparse_family_is_preconditioned_gradient_descent():
    C = 0.2 * normals([0, 1], "test/C", 0, L, D, D).double()
    trace = PreconditionedGD(L, C[:, None])(prompt())
    network = gradient_descent(C, n_layers=L)
    torch.testing.assert_close(network.predict(prompt()), trace.predictions[-1], rtol=0, atol=1e-10)
    labels = residual_stream(network, prompt())[..., prompt().is_context, -1]
    torch.testing.assert_close(labels, trace.internals["residual"], rtol=0, atol=1e-10)
    transposed = gradient_descent(C.mT, n_layers=L).predict(prompt())
    assert (transposed - trace.predictions[-1]).abs().max() > 1e-3


def test_the_full_family_is_gd_plus_plus():
    C = scaled_inverse(STEPS, SIGMA)
    network = gd_plus_plus(C, scaled_identity(REWRITES, D), n_layers=L)
    rule = GDPlusPlus(L, C[:, None], REWRITES[:, None])
    torch.testing.assert_close(network.predict(prompt()), rule.predict(prompt()), rtol=0, atol=1e-10)
    plain = gradient_descent(C, n_layers=L).predict(prompt())
    assert (plain - rule.predict(prompt())).abs().max() > 1e-3


def test_the_last_rewrite_changes_nothing_but_the_first_does():
    C, B = scaled_inverse(STEPS, SIGMA), scaled_identity(REWRITES, D)
    first, last = B.clone(), B.clone()
    first[:, 0] *= 2
    last[:, -1] *= 2
    base, other, same = (gd_plus_plus(C, b, n_layers=L).predict(prompt()) for b in (B, first, last))
    torch.testing.assert_close(same, base, rtol=0, atol=1e-12)
    assert (other - base).abs().max() > 1e-3


@pytest.mark.parametrize(("factor", "optimal"), [(1.0, True), (0.8, False), (1.25, False)])
def test_the_relu_step_of_theorem_five_is_where_the_slope_of_the_loss_vanishes(factor, optimal):
    n, d = 20, D
    step = factor * optimal_relu_step(d, n)
    family = RegressionFamily(d, n_queries=1)
    prompts = family.fresh_prompt([0], "relu", 0, 40_000, n, labelled_layout(d))
    network: LinearTransformer = gradient_descent(
        step * torch.eye(d).double()[None, None], n_layers=1, activation="relu"
    )
    f = network.predict(prompts)[..., 0].detach()
    slope = ((f - prompts.answers[..., 0]) * f).flatten()  # of half the square error, times the step
    z = float(slope.mean() / (slope.std() / len(slope) ** 0.5))
    assert (abs(z) < 4) == optimal
