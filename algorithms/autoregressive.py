"""Rules for autoregression that read only the last one or two states, however long the prompt is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Inexact
from torch import Tensor

from algorithms.examples import DirectLearner, examples
from algorithms.learner import as_constant, constant
from tasks.errors import LearnscopeError
from tasks.layout import Prompt


@dataclass(frozen=True)
class TwoToken(DirectLearner):
    """The operator from the last two states alone: what attention without augmented tokens learns (arXiv 2402.05787).

    Complex states, by coordinate, for a diagonal unitary W:  scale (conj(s_{T-1}) s_T) s_T
    Real ones, by plane (2i, 2i + 1), for rotations W:        scale (2 <s_{T-1}, s_T> s_T - |s_{T-1}|^2 s_{T-1})

    Both are without error where all coordinates, or planes, have the modulus r and scale = 1 / r^2: the second is then
    2 cos(theta) s_T - s_{T-1}. A last coordinate without a partner is a plane by itself, where W is 1 or -1. From one
    state they predict zero.
    """

    scale: float | Tensor = constant(0.0, 1000.0, (1.0, 10.0))

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries d"]:
        if not prompt.causal:
            raise LearnscopeError("two-token reads the last two states of a sequence; the prompt must be causal")
        before, last, _seen = examples(prompt)
        scale = as_constant(self.scale, last, trailing=2)
        if last.is_complex():
            return scale * before.conj() * last * last
        d = last.shape[-1]
        before, last = (torch.nn.functional.pad(x, (0, d % 2)).unflatten(-1, (-1, 2)) for x in (before, last))
        cosine, square = ((before * other).sum(-1, keepdim=True) for other in (last, before))
        return scale * (2 * cosine * last - square * before).flatten(-2)[..., :d]


@dataclass(frozen=True)
class CopyLast(DirectLearner):
    """Predicts the answer that was seen last: s_T, or the label of the last example."""

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        _x, y, _seen = examples(prompt)
        return y if prompt.causal else y[..., -1:, :].expand(*y.shape[:-2], len(prompt.queries), -1).clone()
