"""The same for networks of labelled tokens: gradient descent stepped token by token, from whatever the tokens hold.

After l steps token j is (x_j^(l), r_j^(l)): covariates, which GD++ rewrites, and the residual y_j - x_j . w_l in the
label's place; a query holds minus its prediction (Lemma 1 and Theorem 4 of arXiv 2306.00297). The tokens are all that
the remaining steps need, so whatever is done to them has a predicted effect.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algorithms.gradient_descent import GD, GDPlusPlus, PreconditionedGD
from algorithms.learner import Learner, per_step
from probes.causal_prompts import rewritten
from tasks.layout import Prompt

DESCENTS = (GD, PreconditionedGD, GDPlusPlus)


def layer_matrices(learner: GD | PreconditionedGD | GDPlusPlus, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Per step the matrix A_l [*batch, d, d] of r <- r - x A_l c, and that of x <- x - x B_l S."""
    n = learner.n_steps
    if isinstance(learner, GD):
        identity = torch.eye(like.shape[-1], dtype=like.dtype)
        matrices = [size[..., None] * identity for size in per_step(learner.step_size, n, like)]
    else:
        matrices = per_step(learner.preconditioner, n, like, matrix=True)
    rewrites = per_step(learner.rewrite if isinstance(learner, GDPlusPlus) else 0.0, n, like)
    return [(A, rewrite[..., None] * A) for A, rewrite in zip(matrices, rewrites, strict=True)]


def step_examples(learner: Learner, prompt: Prompt, start: int, stop: int) -> Prompt | None:
    """The tokens after steps start ... stop - 1 on what they hold now; None for learners that no tokens carry."""
    if not isinstance(learner, DESCENTS):
        return None
    layout, context, n = prompt.layout, prompt.is_context, prompt.context.shape[-2]
    x, r = layout.read(prompt.tokens, "features"), layout.read(prompt.tokens, "label")
    for step, rewrite in layer_matrices(learner, x[..., 0, :])[start : min(stop, learner.n_steps)]:
        here = x[..., context, :]
        covariance, cross = here.mT @ here / n, here.mT @ r[..., context, :] / n
        r, x = r - x @ step @ cross, x - x @ rewrite @ covariance
    return rewritten(rewritten(prompt, "features", x), "label", r)


def without_rewriting(learner: Learner, prompt: Prompt) -> Tensor | None:
    """Predictions where every layer finds the covariates as they were: GD++ becomes preconditioned GD."""
    if not isinstance(learner, DESCENTS):
        return None
    if not isinstance(learner, GDPlusPlus):
        return learner.predict(prompt)
    return PreconditionedGD(learner.n_steps, learner.preconditioner).predict(prompt)
