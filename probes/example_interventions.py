"""The interventions on networks of labelled tokens: what gradient descent keeps in them is edited, layer by layer.

Residuals are swapped between tasks, halved, or deleted with their example; covariates are put back to what they were,
which takes from GD++ what it has over preconditioned gradient descent. The changes that learners predict come from
`probes.example_counterfactuals`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from algorithms.learner import Learner
from models.hooked import HookPoint, run_with_hooks
from probes.behaviour import predict
from probes.example_counterfactuals import without_rewriting
from probes.interventions import CausalTest, erasures, layer_edit, more_depth, response, swap_errors
from tasks.layout import Prompt

SCALE = 0.5  # of the residuals
DELETED = 0.25  # share of the examples


def example_tests(n_layers: int, probed: Learner | None = None) -> tuple[CausalTest, ...]:
    """All tests of a regression network of this depth; erasure only where a learner is given whose residuals are."""
    inner = range(1, n_layers)
    return (
        response(),
        *([restored_covariates(n_layers)] if n_layers > 1 else []),
        more_depth(2),
        *map(residual_swap, inner),
        *map(residual_scaling, inner),
        *map(deletion, inner),
        *erasures(n_layers, probed),
    )


def residual_swap(layer: int) -> CausalTest:
    """Gives every example at a layer the residual that stands in its place in the task before."""
    return layer_edit(f"residual swap at {layer}", layer, swap_errors)


def residual_scaling(layer: int) -> CausalTest:
    """Halves the residuals of all examples at a layer: what gradient descent still adds is halved."""

    def scale(tokens: Prompt, _: Prompt) -> list[Tensor]:
        context = tokens.context.clone()
        context[..., tokens.layout["label"]] *= SCALE
        return [context]

    return layer_edit(f"residuals × {SCALE:g} at {layer}", layer, scale)


def deletion(layer: int) -> CausalTest:
    """Zeroes the first quarter of the examples at a layer: no later step learns from them (n stays what it was)."""

    def delete(tokens: Prompt, _: Prompt) -> list[Tensor]:
        context = tokens.context.clone()
        context[..., : max(1, round(DELETED * context.shape[-2])), :] = 0.0
        return [context]

    return layer_edit(f"deletion at {layer}", layer, delete)


def restored_covariates(n_layers: int) -> CausalTest:
    """Puts back x, of examples and queries, before every layer: GD++ lands on preconditioned gradient descent."""

    def seen(subject: Any, prompt: Prompt) -> Tensor:
        given = prompt.layout.read(prompt.tokens, "features")

        def restore(value: Tensor, hook: HookPoint) -> Tensor:
            value = value.clone()
            value[..., prompt.layout["features"]] = given
            return value

        hooks = [(f"blocks.{layer}.hook_resid_pre", restore) for layer in range(1, n_layers)]
        return subject.read_out(run_with_hooks(subject, prompt, hooks), prompt) - predict(subject, prompt)

    def predicted(learner: Learner, prompt: Prompt) -> Tensor | None:
        restored = without_rewriting(learner, prompt)
        return None if restored is None else restored - learner.predict(prompt)

    return CausalTest("covariates restored", "hooks", seen, predicted)
