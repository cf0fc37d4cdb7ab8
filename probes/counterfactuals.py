"""What a learner says an edit inside it would change, from its own constants alone: no network is run.

After l steps the constructions hold their learner in the tokens: token j is (phi_j, phi'_j, delta_j), delta_j the TD
error of w_l in place of the reward, and a query holds minus its value. For learners fixed by a system (e, f, s) the
remaining steps from there are linear and start over, since delta_l = s - f . w_l:

    w_L = w_l + [the learner's steps l ... L-1, from w = 0, on the tokens whose reward is delta_l]

so whatever is done to the tokens at layer l has a predicted effect. TD++ also rewrites phi' and is stepped token by
token.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from algorithms.gradient_descent import Averaging
from algorithms.learner import Learner, as_constant, constants, per_step, read_values
from algorithms.least_squares import ConjugateGradient, Newton
from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import (
    TD0,
    AverageRewardTD,
    Myopic,
    PreconditionedTD,
    ResidualGradient,
    RewardAverage,
    System,
    TDLambda,
    Transitions,
    transitions,
)
from probes.causal_prompts import rewritten, with_tokens
from probes.example_counterfactuals import DESCENTS, step_examples
from tasks.layout import Prompt

Values = Float[Tensor, "*batch queries 1"]
ITERATIVE = (TD0, ResidualGradient, TDLambda, PreconditionedTD, Myopic)


@runtime_checkable
class SystemLearner(Protocol):
    """Learners that are fixed by a system and by how its moments become iterates."""

    def system(self, context: Transitions) -> System: ...

    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]: ...


def in_context(prompt: Prompt, context: Float[Tensor, "*batch n width"]) -> Prompt:
    """The same prompt with other context tokens."""
    tokens = prompt.tokens.expand(*context.shape[:-2], -1, -1).clone()
    tokens[..., prompt.is_context, :] = context
    return with_tokens(prompt, tokens)


def without_bootstrap(learner: Learner, prompt: Prompt) -> Values | None:
    """Predictions when no token reads its next features any more: the difference f is phi, the direction e stays.

    All TD learners become myopic; residual gradient does not, since it still moves along phi - gamma phi'. None for
    learners without a system.
    """
    if isinstance(learner, TDPlusPlus):  # next-feature slots are written, but never read
        return Myopic(learner.n_steps, learner.step_size).predict(prompt)
    if not isinstance(learner, SystemLearner):
        return None
    context = transitions(prompt)
    blind = learner.system(context)._replace(difference=context.phi)
    return read_values(learner.iterates(*blind.moments())[-1], prompt)


def deeper(learner: Learner, factor: int) -> Learner:
    """The learner with `factor` times the steps; those that do not iterate are done and stay as they are."""
    if isinstance(learner, (RewardAverage, Averaging)):
        return learner
    if isinstance(learner, (*ITERATIVE, AverageRewardTD, TDPlusPlus, *DESCENTS, Newton, ConjugateGradient)):
        return replace(learner, n_steps=factor * learner.n_steps)
    return learner


def tokens_at(learner: Learner, prompt: Prompt, layer: int) -> Prompt | None:
    """The tokens as the learner's construction holds them after `layer` steps.

    None where no residual stream holds the learner's errors: solvers, and average-reward TD where there is no memory
    slot, in which it keeps what its errors add to the rewards.
    """
    if "label" in prompt.layout:
        return step_examples(learner, prompt, 0, layer)
    if isinstance(learner, TDPlusPlus):
        return _step_tokens(learner, prompt, 0, layer)
    slot = _slot(learner, prompt)
    if slot is None:
        return None
    trace = learner(prompt)
    step = min(layer, len(trace.predictions) - 1)
    td_error, values = trace.internals["td_error"], trace.predictions[step]
    held = values.new_zeros(*values.shape[:-2], prompt.tokens.shape[-2], 1)
    held[..., prompt.is_context, 0] = td_error[step] - (td_error[0] if slot == "memory" else 0)
    held[..., prompt.queries, :] = -values
    return rewritten(prompt, slot, held)


def resume(learner: Learner, tokens: Prompt, layer: int) -> Values:
    """The final predictions from (possibly edited) `tokens_at` this layer. Raises TypeError where there are none."""
    layout = tokens.layout
    if "label" in layout:
        final = step_examples(learner, tokens, layer, sys.maxsize)
        if final is None:
            raise TypeError(f"{type(learner).__name__} has no step {layer} to go on from")
        return -layout.read(final.query_tokens, "label")
    if isinstance(learner, TDPlusPlus):
        return -layout.read(_step_tokens(learner, tokens, layer, learner.n_steps).query_tokens, "reward")
    slot = _slot(learner, tokens)
    if slot is None:
        raise TypeError(f"{type(learner).__name__} has no step {layer} to go on from")
    remaining = _remaining(learner, layer)
    system = remaining.system(transitions(tokens))
    if slot == "memory":
        system = system._replace(signal=system.signal + layout.read(tokens.context, slot)[..., 0])
    steps = read_values(remaining.iterates(*system.moments())[-1], tokens)
    return steps - layout.read(tokens.query_tokens, slot)


def _slot(learner: Learner, prompt: Prompt) -> str | None:
    """Where the learner's construction writes: TD errors into the reward slot, or next to the rewards into memory."""
    if isinstance(learner, AverageRewardTD):
        return "memory" if "memory" in prompt.layout else None
    return "reward" if isinstance(learner, ITERATIVE) else None


def _remaining(learner: Any, layer: int) -> Any:
    """The learner that takes the steps from `layer` on, with their own constants where each step has its own."""
    n_steps, cut = max(learner.n_steps - layer, 0), {}
    for name, bounds in constants(learner).items():
        value, axis = getattr(learner, name), -3 if bounds.matrix else -1
        if bounds.per_step and isinstance(value, Tensor) and value.ndim and value.shape[axis] > 1:
            cut[name] = value.narrow(axis, learner.n_steps - n_steps, n_steps)
    return replace(learner, n_steps=n_steps, **cut)


def _step_tokens(learner: TDPlusPlus, prompt: Prompt, start: int, stop: int) -> Prompt:
    """Steps start ... stop - 1 of TD++ on every token: the module's two equations, with what the tokens hold now."""
    layout, context, n = prompt.layout, prompt.is_context, prompt.context.shape[-2]
    phi, slot, delta = (layout.read(prompt.tokens, name) for name in ("features", "next_features", "reward"))
    slot = slot / layout.discount
    gamma = as_constant(learner.gamma, phi, trailing=2)
    free = [
        per_step(c, learner.n_steps, phi[..., 0, :])
        for c in (learner.step_size, learner.from_features, learner.from_next)
    ]
    for step_size, from_features, from_next in list(zip(*free, strict=True))[start:stop]:
        here, after, error = (x[..., context, :] for x in (phi, slot, delta))
        gradient = step_size[..., None] * (here.mT @ error) / n
        rewrite = (from_features[..., None] * here.mT + from_next[..., None] * after.mT) @ here / n
        read = gamma * slot - phi
        slot, delta = slot + read @ rewrite.mT, delta + read @ gradient
    return rewritten(rewritten(prompt, "next_features", layout.discount * slot), "reward", delta)
