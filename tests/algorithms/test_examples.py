"""Moments of examples: one set for labelled prompts, one per prefix for causal ones, and what is read out with them."""

from collections.abc import Callable

import pytest
import torch

from algorithms.examples import examples, moments, read_out
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily

REGRESSION = RegressionFamily(d_features=3, n_queries=4, noise=0.1)
KINDS = [(kind, augmented) for kind in ("unitary", "orthogonal") for augmented in (True, False)]


def labelled(n: int = 7) -> Prompt:
    return REGRESSION.fresh_prompt([0, 1], "test", 0, 2, n, labelled_layout(3))


def causal(kind: str, augmented: bool, n: int = 6) -> Prompt:
    family = AutoregressiveFamily(d_features=4, kind=kind, augmented=augmented, first="random")
    return family.fresh_prompt([0, 1], "test", 0, 2, n, family.layout)


def test_labelled_moments_are_means_over_the_context() -> None:
    prompt = labelled()
    found = moments(prompt)
    x, y = prompt.context[..., :3], prompt.context[..., 3:]
    assert found.n == 7
    torch.testing.assert_close(found.covariance, x.mT[:, :, None] @ x[:, :, None] / 7, rtol=0, atol=1e-14)
    torch.testing.assert_close(found.cross, x.mT[:, :, None] @ y[:, :, None] / 7, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "augmented"), KINDS)
def test_causal_moments_are_sums_over_the_pairs_of_a_prefix(kind: str, augmented: bool) -> None:
    """Token by token, and of the whole prompt's length: S_t = (1/T) sum of s_i^H s_i over i < t."""
    prompt = causal(kind, augmented)
    states = prompt.layout.read(prompt.tokens, "features")
    found = moments(prompt)
    for t in range(6):
        x, y = states[..., :t, :], states[..., 1 : t + 1, :]
        torch.testing.assert_close(found.covariance[..., t, :, :], x.mH @ x / 6, rtol=0, atol=1e-14)
        torch.testing.assert_close(found.cross[..., t, :, :], x.mH @ y / 6, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "augmented"), KINDS)
def test_a_query_sees_its_own_prefix_alone(kind: str, augmented: bool) -> None:
    prompt = causal(kind, augmented)
    x, y, seen = examples(prompt)
    states = prompt.layout.read(prompt.tokens, "features")
    for t in range(6):
        assert x[:, :, seen[t]].equal(states[:, :, :t])
        assert y[:, :, seen[t]].equal(states[:, :, 1 : t + 1])


@pytest.mark.parametrize("make", [labelled, lambda: causal("unitary", True)], ids=["labelled", "causal"])
def test_the_true_operator_solves_the_normal_equations_and_answers(make: Callable[[], Prompt]) -> None:
    """C = S W and x W is the answer, where W is the truth: the conventions for complex states agree."""
    prompt = make()
    if prompt.causal:
        family = AutoregressiveFamily(d_features=4, first="random")
        weights = family.operators([0, 1], "test", 0, 2).mT[:, :, None].expand(-1, -1, 6, -1, -1)
    else:
        clean = RegressionFamily(d_features=3, n_queries=4)
        prompt = clean.fresh_prompt([0, 1], "test", 0, 2, 7, labelled_layout(3))
        weights = clean.weights([0, 1], "test", 0, 2)[..., None, :, None]
    assert moments(prompt).descent(weights).abs().max() < 1e-14
    assert moments(prompt).descent(weights.mT.mH if prompt.causal else -weights).abs().max() > 1e-2
    torch.testing.assert_close(read_out(weights, prompt), prompt.answers, rtol=0, atol=1e-14)


def test_transitions_are_refused(make_prompt: Callable[..., Prompt]) -> None:
    with pytest.raises(KeyError, match="no block 'label'"):
        moments(make_prompt())
