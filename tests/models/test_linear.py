"""The hooked forward is the paper's column form, Z <- Z + (1/n) sum_h P_h Z M_h act(Z^T Q_h Z), written naively."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from algorithms.temporal_difference import TD0
from models import constructions
from models.config import ACTIVATIONS, ConfigError, LinearTransformerConfig, Mask
from models.linear import LinearTransformer, mask_matrix, xavier_normal
from tasks.layout import Prompt

Matrix = NDArray[np.float64]

CONFIGS = [
    LinearTransformerConfig(3, True, 3),
    LinearTransformerConfig(2, False, 3, masks=(Mask("query", 0.6),)),
    LinearTransformerConfig(2, False, 3, discounted=False, memory=True, masks=(Mask("centred"), Mask())),
    LinearTransformerConfig(2, True, 3, masks=(Mask(), Mask("query", 0.3), Mask("centred")), readout_sign=1),
]


def activated(scores: Matrix, activation: str, n: int) -> Matrix:
    """act(Z^T Q Z) / n with the 1/n of the paper; rows are keys, columns are the tokens that are updated."""
    if activation == "softmax":  # over context keys, column by column
        weights = np.zeros_like(scores)
        for column in range(scores.shape[1]):
            exponentials = np.exp(scores[:n, column])
            weights[:n, column] = exponentials / exponentials.sum()
        return weights
    if activation == "softmax-over-queries":  # the paper's, dim=1 of its code: row by row
        exponentials = np.exp(scores)
        return exponentials / exponentials.sum(1, keepdims=True) / n
    return (np.maximum(scores, 0) if activation == "relu" else scores) / n


def naive_mask(mask: Mask, n: int) -> Matrix:
    """M, [n + 1, n + 1], with a last row and column of zeros."""
    M = np.zeros((n + 1, n + 1))
    for i in range(n):
        for j in range(n):
            if mask.kind == "centred":
                M[i, j] = float(i == j) - (1 / (j + 1) if i <= j else 0)
            elif i >= j:
                M[i, j] = 1.0 if i == j else mask.lam ** (i - j)
    return M


def column_form(model: LinearTransformer, prompt: Prompt, seed: int, task: int, query: int) -> float:
    """TF_L of one prompt with one query."""
    config = model.config
    context = prompt.context[min(seed, len(prompt.tokens) - 1), task]
    token = prompt.query_tokens[min(seed, len(prompt.tokens) - 1), task, query]
    Z = torch.cat([context, token[None]]).numpy().T
    n = len(context)
    for layer in range(config.n_layers):
        update = np.zeros_like(Z)
        for head, mask in enumerate(config.masks):
            P = model.P[seed, 0 if config.looped else layer, head].detach().numpy()
            Q = model.Q[seed, 0 if config.looped else layer, head].detach().numpy()
            update += P @ Z @ naive_mask(mask, n) @ activated(Z.T @ Q @ Z, config.activation, n)
        Z = Z + update
    return config.readout_sign * Z[-1, -1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("config", CONFIGS, ids=["looped", "lambda", "two heads", "three heads"])
def test_hooked_forward_is_the_papers_column_form(
    config: LinearTransformerConfig,
    activation: str,
    make_prompt: Callable[..., Prompt],
    make_network: Callable[..., LinearTransformer],
) -> None:
    config = replace(config, activation=activation)
    model, prompt = make_network(config, scale=0.5), make_prompt(tasks=2, memory=config.memory)
    predictions = model.predict(prompt).detach()
    assert predictions.shape == (2, 2, 6, 1)
    for seed in range(2):
        for task in range(2):
            for query in range(6):
                naive = column_form(model, prompt, seed, task, query)
                assert predictions[seed, task, query, 0].item() == pytest.approx(naive, abs=1e-12)
    transposed = LinearTransformer(config, model.P.detach(), model.Q.detach().mT)
    assert (transposed.predict(prompt) - predictions).abs().max() > 1e-3


def test_the_two_softmaxes_differ(
    make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    over_keys, over_queries = (
        make_network(LinearTransformerConfig(2, True, 3, activation=a)) for a in ("softmax", "softmax-over-queries")
    )
    prompt = make_prompt()
    assert (over_keys.predict(prompt) - over_queries.predict(prompt)).abs().max() > 1e-3


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_queries_do_not_see_one_another(
    activation: str, make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    model, prompt = make_network(LinearTransformerConfig(2, True, 3, activation=activation)), make_prompt()
    single = model.predict(prompt.one_query_each()).unflatten(1, (3, 6))[..., 0, :]
    torch.testing.assert_close(model.predict(prompt), single, rtol=0, atol=1e-12)


def test_queries_may_stand_anywhere(
    make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    model, prompt = make_network(LinearTransformerConfig(2, True, 3, masks=(Mask("query", 0.5),))), make_prompt()
    order = torch.tensor([12, 0, 1, 13, 14, *range(2, 12), 15, 16, 17])
    moved = replace(prompt, tokens=prompt.tokens[..., order, :], queries=torch.tensor([0, 3, 4, 15, 16, 17]))
    torch.testing.assert_close(model.predict(moved), model.predict(prompt), rtol=0, atol=1e-12)


def test_each_seed_reads_its_own_prompts(
    make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    model, prompt = make_network(LinearTransformerConfig(2, True, 3)), make_prompt(seeds=2)
    both, other = model.predict(prompt), model.predict(replace(prompt, tokens=prompt.tokens.flip(0)))
    assert (both - other).abs().max() > 1e-3
    for seed in range(2):
        own = {name: getattr(prompt, name)[seed : seed + 1] for name in ("tokens", "answers", "task", "weights")}
        alone = LinearTransformer(model.config, model.P[seed : seed + 1].detach(), model.Q[seed : seed + 1].detach())
        torch.testing.assert_close(alone.predict(replace(prompt, **own)), both[seed : seed + 1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("config", CONFIGS, ids=["looped", "lambda", "two heads", "three heads"])
def test_linear_attention_is_linear_in_the_query_for_any_weights(
    config: LinearTransformerConfig, make_prompt: Callable[..., Prompt], make_network: Callable[..., LinearTransformer]
) -> None:
    model, prompt = make_network(config, scale=0.5), make_prompt(memory=config.memory)

    def gap(activation: str) -> float:
        subject = LinearTransformer(replace(config, activation=activation), model.P.detach(), model.Q.detach())
        mixed = prompt.tokens.clone()
        phi = mixed[..., prompt.queries[0], :3], mixed[..., prompt.queries[1], :3]
        mixed[..., prompt.queries[2], :3] = 2.0 * phi[0] - 0.7 * phi[1]
        v = subject.predict(replace(prompt, tokens=mixed))[..., 0]
        return (v[..., 2] - 2.0 * v[..., 0] + 0.7 * v[..., 1]).abs().max().item()

    assert gap("linear") < 1e-12
    assert gap("relu") > 1e-3


@pytest.mark.parametrize("kind", ["query", "centred"])
def test_masks(kind: str) -> None:
    for lam in (0.0, 0.5):
        mask = Mask(kind, lam)
        np.testing.assert_allclose(mask_matrix(mask, 6, torch.float64).numpy(), naive_mask(mask, 6)[:6, :6])


def test_the_centred_mask_takes_the_running_mean_off() -> None:
    rewards = np.array([3.0, 1.0, 2.0, 6.0])
    centred = rewards @ mask_matrix(Mask("centred"), 4, torch.float64).numpy()
    np.testing.assert_allclose(centred, [0.0, 1.0 - 2.0, 2.0 - 2.0, 6.0 - 3.0], atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 1, 5, 5), r"a looped network.*needs \[seeds, 1, 1, 7, 7\]"),
        ((2, 3, 1, 7, 7), r"P has shape \[2, 3, 1, 7, 7\]"),
        ((2, 1, 2, 7, 7), r"1 head\(s\)"),
        ((2, 1, 7, 7), "the heads axis may be left out"),
    ],
    ids=str,
)
def test_weights_of_the_wrong_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearTransformer(LinearTransformerConfig(3, True, 3), torch.zeros(shape), torch.zeros(shape))


def test_seeds_of_p_and_q_must_agree() -> None:
    with pytest.raises(ConfigError, match="P has 2 seeds and Q has 3"):
        LinearTransformer(LinearTransformerConfig(3, True, 3), torch.zeros(2, 1, 1, 7, 7), torch.zeros(3, 1, 1, 7, 7))


@pytest.mark.parametrize(("looped", "gain"), [(True, 0.1), (False, 0.1 / 4)])
def test_xavier_normal(looped: bool, gain: float) -> None:
    config = LinearTransformerConfig(4, looped, 3)
    weights = torch.empty(7, 7)
    torch.nn.init.xavier_normal_(weights, gain=gain, generator=torch.Generator().manual_seed(0))
    unit = torch.empty(7, 7).normal_(generator=torch.Generator().manual_seed(0))
    P, Q = xavier_normal(config, unit.expand(2, 2, config.n_weight_layers, 1, 7, 7))
    torch.testing.assert_close(P, weights.expand_as(P))
    torch.testing.assert_close(Q, P)


def test_a_looped_construction_runs_deeper(make_prompt):
    C, prompt = 0.7 * torch.eye(3, dtype=torch.float64)[None, None], make_prompt()
    deep = constructions.td0(C, n_layers=2).deeper(3)
    assert deep.config.n_layers == 6
    torch.testing.assert_close(deep.predict(prompt), TD0(6, 0.7, 0.9).predict(prompt), rtol=0, atol=1e-10)
    assert (deep.predict(prompt) - TD0(2, 0.7, 0.9).predict(prompt)).abs().max() > 0.01


def test_layers_with_weights_of_their_own_cannot_be_repeated():
    separate = constructions.td0(0.7 * torch.eye(3)[None, None].expand(1, 2, 3, 3), n_layers=2)
    assert separate.deeper(1).config == separate.config
    with pytest.raises(ConfigError, match=r"looped is False.*cannot run 2 times; allowed: once"):
        separate.deeper(2)
