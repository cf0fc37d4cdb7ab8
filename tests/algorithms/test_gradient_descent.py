"""Gradient descent and GD++ are the sparse and the full family of linear transformers (arXiv 2306.00297)."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from algorithms.examples import moments
from algorithms.gradient_descent import (
    GD,
    Averaging,
    GDPlusPlus,
    PreconditionedGD,
    one_step_loss,
    optimal_preconditioner,
    optimal_relu_step,
)
from algorithms.learner import Learner
from models.config import LinearTransformerConfig
from models.hooked import run_with_cache
from models.linear import LinearTransformer
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily, covariance_matrix
from tasks.streams import normals

D, L, N = 3, 4, 12
A = torch.tensor([0.4, 0.9, 0.6, 0.2], dtype=torch.float64)
B = torch.tensor([0.5, -0.3, 0.2, 0.7], dtype=torch.float64)
PROMPT = RegressionFamily(D, covariance_matrix((1.0, 0.3, 2.0), rotation=1), noise=0.2, n_queries=4).fresh_prompt(
    [0, 1], "test", 0, 3, N, labelled_layout(D)
)
MATRICES = 0.3 * normals([0, 1], "test/matrices", 0, 1, L, D, D).double() + 0.5 * torch.eye(D)
UNIT = torch.eye(D, dtype=torch.float64)
PLAIN = A[:, None, None] * UNIT


def network(P: Tensor, Q: Tensor) -> LinearTransformer:
    """Weights [seeds, layers, D, D] of the features' blocks; P copies labels onto themselves."""
    config = LinearTransformerConfig(n_layers=L, looped=False, d_features=D, tokens="labelled")
    model = LinearTransformer(config, *torch.zeros(2, 2, L, 1, D + 1, D + 1, dtype=torch.float64))
    with torch.no_grad():
        model.layout.block(model.P, "features", "features")[:] = P[:, :, None]
        model.layout.block(model.P, "label", "label")[:] = 1.0
        model.layout.block(model.Q, "features", "features")[:] = Q[:, :, None]
    return model


def assert_runs(model: LinearTransformer, learner: Learner) -> None:
    """Layer by layer: its predictions, and its residuals in the label slots of the context."""
    trace = learner(PROMPT)
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(L)]
    residuals = run_with_cache(model, PROMPT, names)
    for layer, name in enumerate(names, start=1):
        torch.testing.assert_close(
            trace.predictions[layer], model.read_out(residuals[name], PROMPT), rtol=0, atol=1e-10
        )
        slots = model.layout.read(residuals[name][..., PROMPT.is_context, :], "label")[..., 0]
        torch.testing.assert_close(trace.internals["residual"][layer], slots, rtol=0, atol=1e-10)


def test_preconditioned_gd_is_the_sparse_family() -> None:
    """Lemma 1: P = [0, 0; 0, 1], Q = -[A^T, 0; 0, 0]."""
    assert_runs(network(torch.zeros(2, L, D, D), -MATRICES[:, 0].mT), PreconditionedGD(L, MATRICES))


def test_gd_is_the_sparse_family_with_multiples_of_the_identity() -> None:
    Q = -A[:, None, None] * torch.eye(D, dtype=torch.float64).expand(2, L, D, D)
    assert_runs(network(torch.zeros(2, L, D, D), Q), GD(L, A))
    with pytest.raises(AssertionError):
        assert_runs(network(torch.zeros(2, L, D, D), Q), GD(L, A + 1e-6))


def full_family() -> LinearTransformer:
    return network(B[:, None, None] * UNIT.expand(2, L, D, D), -MATRICES[:, 0].mT)


def test_gd_plus_plus_is_the_full_family() -> None:
    """Theorem 4's form: P = [b I, 0; 0, 1], Q = -[A^T, 0; 0, 0]."""
    assert_runs(full_family(), GDPlusPlus(L, MATRICES, B))


@pytest.mark.parametrize("change", ["preconditioner", "rewrite"])
def test_every_constant_of_gd_plus_plus_matters(change: str) -> None:
    values = {"preconditioner": MATRICES, "rewrite": B}
    values[change] = values[change] + 0.01 * torch.arange(1.0, 1 + values[change].shape[-1])
    with pytest.raises(AssertionError):
        assert_runs(full_family(), GDPlusPlus(L, **values))


def test_covariate_maps_are_what_the_feature_slots_hold() -> None:
    learner, model = GDPlusPlus(L, MATRICES, B), full_family()
    maps = learner.covariate_maps(moments(PROMPT))
    for layer in range(L):
        name = f"blocks.{layer}.hook_resid_post"
        slots = model.layout.read(run_with_cache(model, PROMPT, [name])[name], "features")
        expected = model.layout.read(PROMPT.tokens, "features") @ maps[layer + 1][..., 0, :, :]
        torch.testing.assert_close(slots, expected, rtol=0, atol=1e-10)


def test_special_cases() -> None:
    same = [
        (GDPlusPlus(L, MATRICES, 0.0), PreconditionedGD(L, MATRICES)),
        (PreconditionedGD(L, PLAIN), GD(L, A)),
        (Averaging(step_size=0.7), GD(1, 0.7)),
        (GDPlusPlus(1, 0.7, 0.3), Averaging(step_size=0.7)),
    ]
    for special, general in same:
        both = (learner.predict(PROMPT).expand(2, -1, -1, -1) for learner in (special, general))
        torch.testing.assert_close(*both, rtol=0, atol=1e-12)
    assert (GDPlusPlus(L, PLAIN, 0.1).predict(PROMPT) - GD(L, A).predict(PROMPT)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("learner", "last"),
    [
        (GD(3, A[:3]), 3),
        (GDPlusPlus(3, A[:3, None, None] * torch.eye(60), B[:3]), 13),
        (GDPlusPlus(2, A[:2, None, None] * torch.eye(60), B[:2]), 4),
    ],
)
def test_polynomial_degree(learner: GD | GDPlusPlus, last: int, polynomial_degree: Callable[..., int]) -> None:
    """The error is p(S) w* with p of degree L for GD and (3^L - 1) / 2 for GD++."""
    assert polynomial_degree(learner) == last


@pytest.mark.parametrize("kind", ["unitary", "orthogonal", "haar"])
def test_one_step_on_a_sequence_is_sanders(kind: str) -> None:
    """W = eta sum_t s_{t+1} s_t^H over the prefix, eta = step_size / T (arXiv 2402.05787)."""
    family = AutoregressiveFamily(4, kind, first="random")
    prompt = family.fresh_prompt([0], "test", 0, 3, 6, family.layout)
    states = prompt.layout.read(prompt.tokens, "features")
    found = Averaging(step_size=1.8)(prompt).predictions[-1]
    for t in range(6):
        pairs = zip(states[..., :t, :].unbind(-2), states[..., 1 : t + 1, :].unbind(-2), strict=True)
        # step_size / T = 0.3
        W = 0.3 * sum(
            (new[..., None] * old[..., None, :].conj() for old, new in pairs), torch.zeros_like(states[..., :4, :])
        )
        torch.testing.assert_close(found[..., t, :], (W @ states[..., t, :, None])[..., 0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("learner", [GD(400, 1.5), GDPlusPlus(6, 1.0, 0.5)], ids=["gd", "gd-plus-plus"])
def test_steps_on_a_sequence_learn_its_operator(learner: Learner) -> None:
    family = AutoregressiveFamily(2, "unitary", first="random")
    prompt = family.fresh_prompt([0], "test", 0, 8, 30, family.layout)
    error = (learner(prompt).predictions - prompt.answers).abs().square().sum(-1)[..., -1].median(-1).values
    assert error[-1] < 0.05 * error[0]


STEPS, REWRITES = A.expand(2, 1, L), B.expand(2, 1, L)
FREE: list[tuple[Callable[..., Learner], list[Tensor]]] = [
    (partial(GD, L), [STEPS]),
    (partial(Averaging, 1), [STEPS[..., :1]]),
    (partial(PreconditionedGD, L), [MATRICES]),
    (partial(GDPlusPlus, L), [MATRICES, REWRITES]),
]


@pytest.mark.parametrize(("build", "values"), FREE, ids=["gd", "averaging", "preconditioned-gd", "gd-plus-plus"])
def test_is_differentiable_and_broadcasts_over_seeds(build: Callable[..., Learner], values: list[Tensor]) -> None:
    prompt = PROMPT.select(slice(0, 1))
    values = [torch.cat([value[:1], 0.5 * value[1:] + 0.01]).clone().requires_grad_() for value in values]

    def predict(*values: Tensor) -> Tensor:
        return build(*values).predict(prompt)

    assert torch.autograd.gradcheck(predict, values)
    first = (values[0].detach(),)
    slope = torch.func.jvp(lambda value: predict(value, *values[1:]), first, first)[1]
    assert slope.abs().max() > 1e-3
    torch.testing.assert_close(predict(*values)[1:], predict(*(v[1:] for v in values))[1:], rtol=0, atol=1e-13)
    learner = build(*values)
    assert learner(prompt).predictions[-1].equal(learner.predict(prompt))
    assert isinstance(learner, Learner)


class TestSingleLayer:
    """Closed forms, d = 5 and n = 20."""

    spectrum = torch.tensor(AHN_SPECTRUM, dtype=torch.float64)
    rotated = torch.tensor(covariance_matrix(AHN_SPECTRUM, rotation=3), dtype=torch.float64)

    def test_theorem_1(self) -> None:
        expected = 1 / (21 / 20 * self.spectrum + self.spectrum.sum() / 20)
        found = torch.linalg.eigvalsh(optimal_preconditioner(self.rotated, 20))
        torch.testing.assert_close(found, expected.sort().values, rtol=0, atol=1e-10)
        assert expected.tolist() == pytest.approx([0.823, 0.823, 2.336, 4.324, 0.823], abs=5e-4)
        isotropic = optimal_preconditioner(torch.eye(5).double(), 20)
        torch.testing.assert_close(isotropic, 20 / 26 * torch.eye(5).double(), rtol=0, atol=1e-12)

    def test_it_is_the_minimum_of_the_loss(self) -> None:
        best = optimal_preconditioner(self.rotated, 20).requires_grad_()
        loss = one_step_loss(best, self.rotated, 20)
        (gradient,) = torch.autograd.grad(loss, best)
        assert gradient.abs().max() < 1e-12
        assert loss.item() == pytest.approx(0.682, abs=5e-4)
        others = best.detach() + 0.1 * normals(range(50), "test/others", 0, 5, 5).double()
        assert (one_step_loss(others, self.rotated, 20) > loss).all()

    def test_losses_of_the_rivals(self) -> None:
        """The best scalar steps and multiples of Sigma^-1: .7536 and .7644 (.755 and .768 by earlier sampling)."""
        scale = torch.linspace(0, 2, 4001, dtype=torch.float64)[:, None, None]
        for family, loss in ((torch.eye(5).double(), 0.7536), (torch.linalg.inv(self.rotated), 0.7644)):
            assert one_step_loss(scale * family, self.rotated, 20).min().item() == pytest.approx(loss, abs=5e-5)

    def test_the_loss_is_that_of_random_prompts(self) -> None:
        family = RegressionFamily(5, covariance_matrix(AHN_SPECTRUM, rotation=3), n_queries=1)
        prompt = family.fresh_prompt([0], "test/mc", 0, 60_000, 20, labelled_layout(5))
        other = torch.linalg.inv(self.rotated) + 0.1 * normals([0], "test/other", 0, 5, 5)[0].double()
        for matrix in (optimal_preconditioner(self.rotated, 20), 0.5 * other):
            squares = (prompt.answers - PreconditionedGD(1, matrix[None]).predict(prompt)).square()
            loss, error = squares.mean(), squares.std() / squares.numel() ** 0.5
            assert abs(loss - one_step_loss(matrix, self.rotated, 20)) < 4 * error
            assert abs(loss - one_step_loss(1.3 * matrix, self.rotated, 20)) > 4 * error

    @pytest.mark.parametrize("relu", [False, True])
    def test_best_steps(self, relu: bool) -> None:
        """The step sizes of Theorems 1 and 5 at Sigma = I are the best on random prompts."""
        prompt = RegressionFamily(5, n_queries=1).fresh_prompt([0], "test/mc", 0, 60_000, 20, labelled_layout(5))
        x, y = prompt.context[0, ..., :5], prompt.context[0, ..., 5:]
        scores = x @ prompt.query_tokens[0, ..., :5].mT
        unit = ((scores.relu() if relu else scores).mT @ y / 20).flatten()
        answers = prompt.answers.flatten()
        best = (unit * answers).mean() / unit.square().mean()
        expected = optimal_relu_step(5, 20) if relu else 20 / 26
        error = (unit * (answers - expected * unit)).std() / len(unit) ** 0.5 / unit.square().mean()
        assert abs(best - expected) < 4 * error
        assert abs(best - 1.1 * expected) > 4 * error
        assert expected == pytest.approx(1.212 if relu else 0.769, abs=5e-4)


def test_a_wrong_number_of_steps_is_named() -> None:
    with pytest.raises(ValueError, match="4 step constants for 5 steps"):
        GDPlusPlus(5, PLAIN).predict(PROMPT)


def test_predictions_of_a_query_do_not_depend_on_the_other_queries() -> None:
    alone = GDPlusPlus(L, PLAIN, B).predict(PROMPT.one_query_each())
    together = GDPlusPlus(L, PLAIN, B).predict(PROMPT)
    torch.testing.assert_close(alone.flatten(), together.flatten(), rtol=0, atol=1e-14)


def test_sequences_are_no_labels() -> None:
    prompt = AutoregressiveFamily(2, "unitary").fresh_prompt(
        [0], "test", 0, 1, 5, AutoregressiveFamily(2, "unitary").layout
    )
    trace = GD(2)(prompt)
    assert trace.weights is None
    assert not trace.internals
    assert isinstance(prompt, Prompt)
