"""Questions put as prompts: can a value be stitched together, and which rewards does a prediction answer to?

*Stitching*: a chain of d orthogonal states whose transitions come one by one in random order, so that only equal
features link them, with a reward at its end. A learner that bootstraps L times carries the reward L - 1 transitions
back; a solver carries it all the way.

*Response kernel*: d prediction / d reward_j for every context token j, ordered by the number of observed transitions
from the query's state to the state that token j leaves (TD: one more per step), or by how long ago j was (Monte Carlo
and traces).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from probes.behaviour import Predictor, predict
from tasks.layout import Prompt, TokenLayout
from tasks.streams import uniforms
from tasks.trajectories import query_tokens

SAME_STATE = 1e-6  # features this near in every entry belong to one state

Kernel = Float[Tensor, "seeds tasks queries n"]


def with_tokens(prompt: Prompt, tokens: Inexact[Tensor, "seeds tasks pos width"]) -> Prompt:
    """The same questions about other tokens, which may differ between seeds."""
    fields = {name: getattr(prompt, name) for name in ("answers", "task", "weights")}
    own = {name: value.expand(len(tokens), *value.shape[1:]) for name, value in fields.items()}
    return replace(prompt, tokens=tokens, **own)


def rewritten(prompt: Prompt, name: str, values: Float[Tensor, "*batch pos slot"]) -> Prompt:
    """The same prompt with a named block of every token, queries included, set to `values`."""
    tokens = prompt.tokens.expand(*values.shape[:-1], -1).clone()
    tokens[..., prompt.layout[name]] = values
    return with_tokens(prompt, tokens)


def stitching_prompt(layout: TokenLayout, context_length: int, n_tasks: int) -> Prompt:
    """Chains s_{d-1} -> ... -> s_0 -> end as shuffled transitions, batch axes (1, n_tasks), float64.

    Only leaving s_0 is rewarded, with 1. Query k is s_k, k transitions before the reward: its value is discount^k. Each
    transition stands in the context as often as fits in `context_length`, at least once. Features are a signed
    permutation of the unit vectors, as long as U(-1, 1)^d on average; the end has none.
    """
    d = layout.d_features
    copies = max(1, context_length // d)
    orders = uniforms([0], "stitching/order", 0, n_tasks, copies * d).argsort(-1)
    signs = torch.where(uniforms([0], "stitching/signs", 0, n_tasks, d) < 0.5, -1.0, 1.0).double()
    axes = uniforms([0], "stitching/axes", 0, n_tasks, d).argsort(-1)
    states = (d / 3) ** 0.5 * torch.eye(d, dtype=torch.float64)[axes] * signs[..., None]  # [1, tasks, d states, d]
    ahead = torch.nn.functional.pad(states, (0, 0, 1, 0))[..., :-1, :]
    reward = torch.zeros_like(states[..., :1]).index_fill(-2, torch.tensor([0]), 1.0)
    transitions = torch.cat([states, layout.discount * ahead, reward], -1)
    transitions = torch.nn.functional.pad(transitions, (0, layout.width - transitions.shape[-1]))
    context = transitions.take_along_dim((orders % d)[..., None], -2)
    values = layout.discount ** torch.arange(d, dtype=torch.float64)
    return Prompt(
        tokens=torch.cat([context, query_tokens(states, layout)], -2),
        layout=layout,
        queries=torch.arange(copies * d, copies * d + d),
        answers=values[:, None].expand(1, n_tasks, -1, -1),
        task=torch.arange(n_tasks)[None],
        weights=torch.ones(1, n_tasks, d, dtype=torch.float64),
    )


def response_to_reward(predictor: Predictor, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
    """Predictions with the rewards of the context less those without any."""
    unrewarded = prompt.tokens.clone()
    unrewarded[..., prompt.layout["reward"]] = 0.0
    return predict(predictor, prompt) - predict(predictor, with_tokens(prompt, unrewarded))


def response_kernel(predictor: Predictor, prompt: Prompt) -> Kernel:
    """d prediction / d reward_j, or label_j, exact: one backward pass for all queries."""
    n_seeds = predict(predictor, prompt.select(slice(0, 1))).shape[0]
    # a copy of the tokens per seed, lest the seeds' derivatives be summed
    tokens = prompt.tokens.detach().expand(n_seeds, *prompt.tokens.shape[1:]).clone().requires_grad_()
    with torch.enable_grad():
        predictions = predict(predictor, with_tokens(prompt, tokens)) + 0 * tokens.sum()
    pick = torch.eye(len(prompt.queries), dtype=predictions.dtype)[:, None, None, :, None]
    outputs = pick.expand(-1, *predictions.shape).contiguous()
    (slopes,) = torch.autograd.grad(predictions, tokens, outputs, is_grads_batched=True)
    return prompt.layout.read(slopes, prompt.layout.target)[..., prompt.is_context, 0].permute(1, 2, 0, 3)


def hops(prompt: Prompt) -> Float[Tensor, "*batch queries n"]:
    """Fewest observed transitions from a query's state to the state that token j leaves; infinite without a way."""
    layout, context = prompt.layout, prompt.context
    phi = layout.read(context, "features")
    after = layout.read(context, "next_features") / layout.discount
    follows = _same(after, phi).double()  # [*batch, i, j]: token j leaves the state that i enters
    reached = _same(layout.read(prompt.query_tokens, "features"), phi)
    distance = torch.where(reached, 0.0, torch.inf).double()
    for k in range(1, context.shape[-2]):
        reached = (reached.double() @ follows > 0) & distance.isinf()
        if not reached.any():
            break
        distance = torch.where(reached, float(k), distance)
    return distance


def ages(prompt: Prompt) -> Float[Tensor, "*batch queries n"]:
    """How many transitions of the context came after token j."""
    n = prompt.context.shape[-2]
    return torch.arange(n - 1, -1, -1).double().expand(*prompt.weights.shape, n)


def response_by(
    distance: Float[Tensor, "#seeds tasks queries n"], kernel: Kernel, prompt: Prompt, longest: int
) -> Float[Tensor, "seeds distances"]:
    """The response to one more reward on *every* token at distance 0 ... longest, averaged over the queries that have
    such a token (by prompt.weights) and over tasks."""
    weights = prompt.weights[..., None]
    profile = []
    for k in range(longest + 1):
        there = (distance == k).to(kernel)
        asked = (weights * there.amax(-1, keepdim=True)).expand(*kernel.shape[:-1], 1)
        total = (asked[..., 0] * (there * kernel).sum(-1)).sum((-2, -1))
        profile.append(total / asked.sum((-3, -2, -1)))
    return torch.stack(profile, -1)


def _same(first: Float[Tensor, "*batch a d"], second: Float[Tensor, "*batch b d"]) -> Tensor:
    return (first[..., :, None, :] - second[..., None, :, :]).abs().amax(-1) < SAME_STATE
