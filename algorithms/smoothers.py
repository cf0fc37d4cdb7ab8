"""Learners that look labels up by similarity and learn no operator: nearest neighbours, and a kernel smoother."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Inexact
from torch import Tensor

from algorithms.examples import DirectLearner, examples
from algorithms.learner import as_constant, constant
from tasks.layout import Prompt


class _Smoother(DirectLearner):
    """Predicts a weighted mean of the labels that a query may see; zero where it sees none."""

    @abstractmethod
    def shares(
        self, distance: Float[Tensor, "*batch queries n"], seen: Bool[Tensor, "#queries n"]
    ) -> Float[Tensor, "*batch2 queries n"]:
        """How much each label counts, from the squared distances |x_q - x_i|^2."""
        ...

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        x, y, seen = examples(prompt)
        queries = prompt.layout.read(prompt.query_tokens, "features")
        squares = queries.abs().square().sum(-1)[..., :, None] + x.abs().square().sum(-1)[..., None, :]
        return self.shares(squares - 2 * (queries @ x.mH).real, seen).to(y.dtype) @ y


@dataclass(frozen=True)
class NearestNeighbour(_Smoother):
    """The mean label of the nearest examples, fewer where a prefix has fewer (3 in arXiv 2208.01066 and 2211.15661)."""

    n_neighbours: int = 3

    def shares(
        self, distance: Float[Tensor, "*batch queries n"], seen: Bool[Tensor, "#queries n"]
    ) -> Float[Tensor, "*batch queries n"]:
        count = min(self.n_neighbours, distance.shape[-1])
        nearest = distance.masked_fill(~seen, torch.inf).topk(count, largest=False).indices
        chosen = torch.zeros_like(distance).scatter(-1, nearest, 1.0) * seen
        return chosen / chosen.sum(-1, keepdim=True).clamp(min=1.0)


@dataclass(frozen=True)
class KernelSmoother(_Smoother):
    """Nadaraya-Watson with a Gaussian kernel: softmax_i(-beta |x_q - x_i|^2 / 2).

    On covariates of equal length it is softmax attention with scores beta x_q . x_i.
    """

    inverse_temperature: float | Tensor = constant(0.0, 100.0, (1.0, 5.0, 0.2))

    def shares(
        self, distance: Float[Tensor, "*batch queries n"], seen: Bool[Tensor, "#queries n"]
    ) -> Float[Tensor, "*batch2 queries n"]:
        scores = -as_constant(self.inverse_temperature, distance, trailing=2) * distance / 2
        return torch.softmax(scores.masked_fill(~seen, torch.finfo(scores.dtype).min), -1) * seen
