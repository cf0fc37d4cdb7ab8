"""What the learners of regression and autoregression read: examples (x_i, y_i) and their moments.

Autoregression is regression with many outputs at every prefix: x_i = s_i, y_i = s_{i+1}, and the query is the last
state. So the same learners serve labelled prompts, where all queries share n examples, and causal ones, where query t
has the t - 1 pairs of its prefix. With examples as rows of X and Y,

    S = X^H X / n,   C = X^H Y / n,   and weights W [d, out] predict x W for a query, a row x

so that OLS is S^-1 C, and the operator of s_{t+1} = A s_t is W = A^T. n counts the context tokens of the whole prompt,
the same for every prefix: the sum over pairs in arXiv 2402.05787 is the mean here, and its step size is step_size / n.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Inexact
from torch import Tensor

from algorithms.learner import Trace, stack_steps
from tasks.layout import Prompt


class Examples(NamedTuple):
    """x [*batch, n, d] and y [*batch, n, out]; seen [queries or 1, n] is true where a query may use an example.

    In a causal prompt the first example is no pair, but (0, s_1): no query sees it.
    """

    x: Tensor
    y: Tensor
    seen: Tensor


class Moments(NamedTuple):
    """S [*batch, prefixes, d, d] and C [*batch, prefixes, d, out] of n context tokens; one prefix for all queries of a
    labelled prompt, one for each query of a causal one."""

    covariance: Tensor
    cross: Tensor
    n: int

    def descent(self, weights: Tensor) -> Tensor:
        """C - S W: minus the gradient of the mean of |y - x W|^2 / 2."""
        return self.cross - self.covariance @ weights


def examples(prompt: Prompt) -> Examples:
    """The examples of a prompt's context. Raises KeyError for tokens that are neither labelled nor states."""
    layout, context = prompt.layout, prompt.context
    features, n = layout.read(context, "features"), context.shape[-2]
    if not prompt.causal:
        return Examples(features, layout.read(context, "label"), torch.ones(1, n, dtype=torch.bool))
    before = torch.nn.functional.pad(features[..., :-1, :], (0, 0, 1, 0))
    last, pair = torch.arange(n)[:, None], torch.arange(n)
    return Examples(before, features, (pair > 0) & (pair <= last))


def moments(prompt: Prompt) -> Moments:
    """S and C of every prefix that is asked, from one pass over the context."""
    x, y, _seen = examples(prompt)
    read, n = torch.cat([x, y], -1), x.shape[-2]
    products = x.conj()[..., None] * read[..., None, :]
    sums = products.cumsum(-3) if prompt.causal else products.sum(-3, keepdim=True)
    covariance, cross = (sums / n).split([x.shape[-1], y.shape[-1]], -1)
    return Moments(covariance, cross, n)


def read_out(
    weights: Inexact[Tensor, "*batch prefixes d out"], prompt: Prompt
) -> Inexact[Tensor, "*batch2 queries out"]:
    """x W for every query x and the W of its prefix."""
    features = prompt.layout.read(prompt.query_tokens, "features")
    if prompt.causal:
        return (features[..., None, :] @ weights)[..., 0, :]
    return features @ weights[..., 0, :, :]


class LinearLearner(ABC):
    """Learners whose predictions are x W. Subclasses say how the moments become iterates of W."""

    @abstractmethod
    def iterates(self, moments: Moments) -> list[Tensor]:
        """W_0, W_1, ... [*batch, prefixes, d, out]; their batch axes may differ in size one."""
        ...

    def __call__(self, prompt: Prompt) -> Trace:
        """On labelled prompts also the weights and the residuals y_i - x_i . w_l, which label slots hold (Lemma 1 of
        arXiv 2306.00297)."""
        weights = stack_steps(self.iterates(moments(prompt)))
        predictions = read_out(weights, prompt)
        if prompt.causal:
            return Trace(predictions)
        x, y, _seen = examples(prompt)
        residual = y - x @ weights[..., 0, :, :]
        return Trace(predictions, weights[..., 0, :, 0], {"residual": residual[..., 0]})

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        return read_out(self.iterates(moments(prompt))[-1], prompt)


class DirectLearner(ABC):
    """Learners that predict at once, without weights."""

    @abstractmethod
    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]: ...

    def __call__(self, prompt: Prompt) -> Trace:
        predictions = self.predict(prompt)
        return Trace(torch.stack([torch.zeros_like(predictions), predictions]))
