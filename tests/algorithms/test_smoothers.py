"""Smoothers against scikit-learn, softmax attention, and the labels that a prefix may see."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from algorithms.examples import examples
from algorithms.learner import Learner
from algorithms.smoothers import KernelSmoother, NearestNeighbour
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily

FAMILY = RegressionFamily(3, n_queries=5)
PROMPT = FAMILY.fresh_prompt([0, 1], "test", 0, 3, 8, labelled_layout(3))


def sequence(kind: str = "unitary") -> Prompt:
    family = AutoregressiveFamily(4, kind, first="random")
    return family.fresh_prompt([0, 1], "test", 0, 2, 7, family.layout)


@pytest.mark.parametrize("n_neighbours", [1, 3])
def test_nearest_neighbours_are_scikit_learns(n_neighbours: int) -> None:
    x, y, _seen = examples(PROMPT)
    queries = PROMPT.layout.read(PROMPT.query_tokens, "features")
    found = NearestNeighbour(n_neighbours).predict(PROMPT)
    for seed, task in np.ndindex(2, 3):
        model = KNeighborsRegressor(n_neighbours).fit(x[seed, task].numpy(), y[seed, task].numpy())
        np.testing.assert_allclose(found[seed, task].numpy(), model.predict(queries[seed, task].numpy()), atol=1e-12)


def test_more_neighbours_than_examples_are_all_of_them() -> None:
    mean = PROMPT.context[..., 3:].mean(-2, keepdim=True).expand(-1, -1, 5, -1)
    torch.testing.assert_close(NearestNeighbour(20).predict(PROMPT), mean, rtol=0, atol=1e-12)


def test_kernel_smoother_is_nadaraya_watson() -> None:
    """Query by query, from the definition."""
    x, y, _seen = examples(PROMPT)
    found = KernelSmoother(0.7).predict(PROMPT)
    for seed, task, q in np.ndindex(2, 3, 5):
        query = PROMPT.query_tokens[seed, task, q, :3]
        kernel = [np.exp(-0.7 * (query - neighbour).square().sum().item() / 2) for neighbour in x[seed, task]]
        expected = np.average(y[seed, task, :, 0].numpy(), weights=kernel)
        assert found[seed, task, q, 0].item() == pytest.approx(expected, abs=1e-12)


def test_on_covariates_of_equal_length_it_is_softmax_attention() -> None:
    prompt = RegressionFamily(3, covariates="sphere", n_queries=5).fresh_prompt(
        [0], "test", 0, 3, 8, labelled_layout(3)
    )
    x, y, _seen = examples(prompt)
    expected = torch.softmax(1.3 * prompt.query_tokens[..., :3] @ x.mT, -1) @ y
    torch.testing.assert_close(KernelSmoother(1.3).predict(prompt), expected, rtol=0, atol=1e-12)
    unequal = (
        torch.softmax(1.3 * PROMPT.query_tokens[..., :3] @ PROMPT.context[..., :3].mT, -1) @ PROMPT.context[..., 3:]
    )
    assert (KernelSmoother(1.3).predict(PROMPT) - unequal).abs().max() > 1e-2


def test_limits_of_the_kernel() -> None:
    mean = PROMPT.context[..., 3:].mean(-2, keepdim=True).expand(-1, -1, 5, -1)
    torch.testing.assert_close(KernelSmoother(0.0).predict(PROMPT), mean, rtol=0, atol=1e-12)
    sharp = KernelSmoother(1e5).predict(PROMPT)
    torch.testing.assert_close(sharp, NearestNeighbour(1).predict(PROMPT), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["unitary", "orthogonal"])
@pytest.mark.parametrize("learner", [NearestNeighbour(2), KernelSmoother(0.9)], ids=["neighbours", "kernel"])
def test_a_prefix_looks_up_its_own_pairs(learner: Learner, kind: str) -> None:
    """Query t answers from the pairs (s_i, s_i+1), i < t, as a labelled prompt of them would; with none, zero."""
    prompt = sequence(kind)
    states = prompt.layout.read(prompt.tokens, "features")
    found = learner.predict(prompt)
    assert not found[..., 0, :].any()
    for t in range(1, 7):
        distance = (states[..., t, None, :] - states[..., :t, :]).abs().square().sum(-1)
        if isinstance(learner, KernelSmoother):
            shares = torch.softmax(-0.9 * distance / 2, -1)
        else:
            nearest = distance.argsort(-1)[..., : min(2, t)]
            shares = torch.zeros_like(distance).scatter(-1, nearest, 1 / min(2, t))
        expected = (shares[..., None] * states[..., 1 : t + 1, :]).sum(-2)
        torch.testing.assert_close(found[..., t, :], expected, rtol=0, atol=1e-12)


def test_is_differentiable_and_broadcasts_over_seeds() -> None:
    beta = torch.tensor([[0.8], [2.0]], dtype=torch.float64, requires_grad=True)
    for prompt in (PROMPT, sequence("orthogonal")):
        assert torch.autograd.gradcheck(lambda b, prompt=prompt: KernelSmoother(b).predict(prompt), [beta])
        together = KernelSmoother(beta).predict(prompt)
        torch.testing.assert_close(together[1:], KernelSmoother(2.0).predict(prompt)[1:], rtol=0, atol=1e-13)
        trace = KernelSmoother(beta)(prompt)
        assert trace.predictions[1].equal(together)
        assert not trace.predictions[0].any()
    assert isinstance(KernelSmoother(), Learner)
