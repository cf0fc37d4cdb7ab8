"""The interventions: what each one changes in a subject, and the change that a learner predicts of it.

Edits of weights (bootstrap lesion), of depth (loops) and of the residual stream (swap and erasure of TD errors, through
hooks) have their counterparts in `probes.counterfactuals`, computed from a learner's constants. Edits of the prompt
(discount counterfactual, stitching, response kernel) need none: learners read the edited prompt themselves.
`probes.causal` compares what is seen with what is predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from algorithms.fit import DIVERGED
from algorithms.learner import Learner
from models.hooked import HookPoint, norm_matched_placebo, run_with_cache, run_with_hooks
from models.linear import LinearTransformer
from probes.behaviour import Predictor, predict
from probes.causal_prompts import response_kernel, response_to_reward, stitching_prompt, with_tokens
from probes.counterfactuals import deeper, in_context, resume, tokens_at, without_bootstrap
from tasks.layout import Prompt
from tasks.streams import normals

Need = Literal["predictor", "weights", "loops", "hooks"]
# from the tokens at a layer and the prompt they came from to new context tokens [seeds, tasks, n, width], one per edit
Edit = Callable[[Prompt, Prompt], list[Tensor]]

DISCOUNTS = (0.5, 1.25)
N_PLACEBOS = 8


@dataclass(frozen=True)
class CausalTest:
    """An intervention: what it needs of a subject, what it changes there, and what a learner says it changes.

    seen(subject, prompt), predicted(learner, prompt): changes [seeds, tasks, queries, out]; predicted is None where the
    learner has no counterpart of what is edited. prompt: what is asked, given the subject's own prompt.
    """

    name: str
    needs: Need
    seen: Callable[[Any, Prompt], Tensor]
    predicted: Callable[[Learner, Prompt], Tensor | None]
    prompt: Callable[[Prompt], Prompt] = lambda own: own

    def obstacle(self, subject: Predictor) -> str:
        """Why the test cannot be made on this subject, empty where it can."""
        merged = isinstance(subject, LinearTransformer)
        if self.needs in ("weights", "loops") and not merged:
            return "needs merged weights P and Q"
        if self.needs == "loops" and merged and not subject.config.looped:
            return "needs a looped network: layers with weights of their own cannot run again"
        if self.needs == "hooks" and "blocks.0.hook_resid_pre" not in getattr(subject, "hook_dict", ()):
            return "needs a residual stream with hooks"
        if self.needs == "hooks" and merged and subject.config.activation == "softmax-over-queries":
            return "needs one residual stream per task, which softmax-over-queries has not"
        return ""


def standard_tests(n_layers: int, probed: Learner | None = None) -> tuple[CausalTest, ...]:
    """All tests of a value estimator of this depth; erasure only where a learner is given whose TD error is probed."""
    return (
        bootstrap_lesion(),
        *map(discount_counterfactual, DISCOUNTS),
        stitching(),
        response(),
        more_depth(2),
        *map(td_error_swap, range(1, n_layers)),
        *erasures(n_layers, probed),
    )


def erasures(n_layers: int, probed: Learner | None) -> list[CausalTest]:
    """Erasure and its control before every inner layer; none where no learner is probed."""
    if probed is None:
        return []
    return [make(layer, probed) for layer in range(1, n_layers) for make in (erasure, random_erasure)]


def bootstrap_lesion() -> CausalTest:
    """Zeroes the columns of Q that meet next features: what an updated token holds of them is not read any more.

    TD lands on the myopic answer; residual gradient, whose keys still carry next features, does not.
    """

    def seen(subject: LinearTransformer, prompt: Prompt) -> Tensor:
        return predict(without_bootstrap_block(subject), prompt) - predict(subject, prompt)

    def predicted(learner: Learner, prompt: Prompt) -> Tensor | None:
        blind = without_bootstrap(learner, prompt)
        return None if blind is None else blind - learner.predict(prompt)

    return CausalTest("bootstrap lesion", "weights", seen, predicted)


def without_bootstrap_block(model: LinearTransformer) -> LinearTransformer:
    """The network with the columns of Q that meet next features at zero."""
    Q = model.Q.detach().clone()
    Q[..., model.layout["next_features"]] = 0.0
    return LinearTransformer(model.config, model.P.detach(), Q)


def block_lesions(model: LinearTransformer, *, permuted: bool = False) -> dict[str, LinearTransformer]:
    """The network with one named block of P or of Q at zero, by name: "P reward,features" writes the first from the
    second, "Q features,next_features" matches the first of a key with the second of a query.

    permuted: with the block's entries in a random order instead, its norm kept, as a control of what any damage does.
    """
    lesioned = {}
    for weight in ("P", "Q"):
        for row, column in product((name for name, _ in model.layout.blocks), repeat=2):
            weights = {"P": model.P.detach().clone(), "Q": model.Q.detach().clone()}
            block = model.layout.block(weights[weight], row, column)
            if permuted:
                order = normals([0], f"lesion/{weight}/{row}/{column}", 0, block.shape[-2:].numel())[0].argsort()
                block.copy_(block.flatten(-2)[..., order].view(block.shape))
            else:
                block.zero_()
            lesioned[f"{weight} {row},{column}"] = LinearTransformer(model.config, weights["P"], weights["Q"])
    return lesioned


def discount_counterfactual(factor: float) -> CausalTest:
    """Multiplies the next features in the context: whoever bootstraps from them behaves as with factor * gamma."""

    def change(predictor: Predictor, prompt: Prompt) -> Tensor:
        context = prompt.context.clone()
        context[..., prompt.layout["next_features"]] *= factor
        return predict(predictor, in_context(prompt, context)) - predict(predictor, prompt)

    return CausalTest(f"discount × {factor:g}", "predictor", change, change)


def stitching() -> CausalTest:
    """The response to a reward that other transitions lead to (`stitching_prompt`); query k is k transitions away."""

    def chains(own: Prompt) -> Prompt:
        return stitching_prompt(own.layout, own.context.shape[-2], own.tokens.shape[1])

    return CausalTest("stitching", "predictor", response_to_reward, response_to_reward, chains)


def response() -> CausalTest:
    """The response kernel d prediction / d reward_j, or label_j; the change has one entry per context token j."""
    return CausalTest("response kernel", "predictor", response_kernel, response_kernel)


def more_depth(factor: int) -> CausalTest:
    """Runs a looped network `factor` times as deep. Solvers and reward averaging are done and predict no change."""

    def seen(subject: LinearTransformer, prompt: Prompt) -> Tensor:
        return predict(subject.deeper(factor), prompt) - predict(subject, prompt)

    def predicted(learner: Learner, prompt: Prompt) -> Tensor:
        return deeper(learner, factor).predict(prompt) - learner.predict(prompt)

    return CausalTest(f"loops × {factor}", "loops", seen, predicted)


def td_error_swap(layer: int) -> CausalTest:
    """Gives every context token at a layer the TD error that stands in its place in the task before.

    Both slots that hold it: the reward slot and, where there is one, the memory slot.
    """
    return layer_edit(f"TD-error swap at {layer}", layer, swap_errors)


def swap_errors(tokens: Prompt, _: Prompt) -> list[Tensor]:
    """The context tokens with the errors of the task before, in every slot that holds them."""
    context = tokens.context.clone()
    for name in (tokens.layout.target, "memory"):
        if name in tokens.layout:
            context[..., tokens.layout[name]] = tokens.layout.read(tokens.context, name).roll(1, -3)
    return [context]


def erasure(layer: int, probed: Learner) -> CausalTest:
    """Erases what a linear probe of the context tokens at a layer finds of the probed learner's errors (LEACE)."""

    def erase(tokens: Prompt, prompt: Prompt) -> list[Tensor]:
        return [_erased(layer, probed, tokens, prompt)]

    return layer_edit(f"erasure at {layer}", layer, erase)


def random_erasure(layer: int, probed: Learner) -> CausalTest:
    """The control of `erasure`: every token is moved as far, along random directions; one change for each of them."""

    def displace(tokens: Prompt, prompt: Prompt) -> list[Tensor]:
        erased = _erased(layer, probed, tokens, prompt)
        draws = normals([0], "erasure/placebo", 0, N_PLACEBOS, prompt.layout.width, 1)[0].to(erased)
        return [norm_matched_placebo(tokens.context.expand_as(erased), erased, draw / draw.norm()) for draw in draws]

    return layer_edit(f"random erasure at {layer}", layer, displace)


def layer_edit(name: str, layer: int, edit: Edit) -> CausalTest:
    """The same edits of the context tokens at a layer, in the subject's residual stream and in a learner's tokens."""
    hook_name = f"blocks.{layer}.hook_resid_pre"

    def seen(subject: Any, prompt: Prompt) -> Tensor:
        tokens = with_tokens(prompt, run_with_cache(subject, prompt, [hook_name])[hook_name])
        edited = (in_context(tokens, context).tokens for context in edit(tokens, prompt))
        finals = (run_with_hooks(subject, prompt, [(hook_name, partial(_write, resid))]) for resid in edited)
        return torch.cat([subject.read_out(final, prompt) for final in finals], -1) - predict(subject, prompt)

    def predicted(learner: Learner, prompt: Prompt) -> Tensor | None:
        tokens = tokens_at(learner, prompt, layer)
        if tokens is None:
            return None
        resumed = [resume(learner, in_context(tokens, context), layer) for context in edit(tokens, prompt)]
        return torch.cat(resumed, -1) - learner.predict(prompt)

    return CausalTest(name, "hooks", seen, predicted)


def _write(value: Tensor, _: Tensor, hook: HookPoint) -> Tensor:
    return value


def _erased(layer: int, probed: Learner, tokens: Prompt, prompt: Prompt) -> Tensor:
    """LEACE (arXiv 2306.03819), x - left right (x - mean), fitted per seed on the context tokens of all sound tasks."""
    context, errors = tokens.context, probed(prompt).error
    assert errors is not None  # only a learner that has them is probed
    error = errors[layer]
    batch = torch.broadcast_shapes(context.shape[:-1], error.shape)
    context, error = context.expand(*batch, -1), error[..., None].expand(*batch, 1)
    power = context.square().sum(-1).mean(-1) + error.square().mean((-2, -1))
    sound = power.isfinite() & (power <= DIVERGED**2 * power.nanmedian(-1, keepdim=True).values)
    # the library's fitter takes one data set
    seeds = zip(context, error, sound, strict=True)
    fits = [_leace(x[kept].flatten(0, 1), z[kept].flatten(0, 1)) for x, z, kept in seeds]
    left, right, mean = (torch.stack(part)[:, None] for part in zip(*fits, strict=True))
    return context - (context - mean[..., None, :]) @ right.mT @ left.mT


def _leace(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """proj_left [width, 1], proj_right [1, width] and the mean; NaN where there is nothing to fit."""
    from concept_erasure import LeaceFitter  # it takes a second to import

    if len(x) < 2:
        return x.new_full((x.shape[-1], 1), torch.nan), x.new_full((1, x.shape[-1]), torch.nan), x.new_zeros(x.shape[1])
    # the plain projection, and nothing that is linear is left over
    eraser = LeaceFitter.fit(x, z, shrinkage=False, constrain_cov_trace=False, svd_tol=1e-12).eraser
    return eraser.proj_left, eraser.proj_right, x.mean(0)
