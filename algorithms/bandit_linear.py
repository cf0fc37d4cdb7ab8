"""Bandit learners that know the features of arms: one posterior over weights serves all of them.

A = ridge I + sum_t phi_t phi_t^T,   w = A^-1 sum_t r_t phi_t,   s_a = sqrt(phi_a^T A^-1 phi_a)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import IndexLearner, log_law, soft_law
from algorithms.learner import as_constant, constant
from tasks.streams import normals


@dataclass(frozen=True)
class LinearPosterior(IndexLearner):
    """phi_a . w, the posterior mean where theta ~ N(0, I / ridge) in units of the noise; `features` [arms, d]."""

    features: Float[Tensor, "arms d"] = field(kw_only=True)
    ridge: float | Tensor = constant(1e-3, 100.0, (1.0, 0.1))

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        moment = zeros[..., :1].expand(*zeros.shape[:-1], self.features.shape[-1])
        return self._solved({"gram": moment[..., None] * moment[..., None, :], "moment": moment})

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        phi = arm @ self.features.to(arm)
        gram = state["gram"] + phi[..., None] * phi[..., None, :]
        return self._solved({"gram": gram, "moment": state["moment"] + reward * phi})

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return statistics["weights"] @ self.features.to(statistics["weights"]).mT

    def _solved(self, moments: State) -> State:
        gram = moments["gram"]
        identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        covariance = torch.linalg.inv(gram + as_constant(self.ridge, gram, trailing=2) * identity)
        weights = (covariance @ moments["moment"][..., None])[..., 0]
        return {**moments, "covariance": covariance, "weights": weights}


@dataclass(frozen=True)
class LinUCB(LinearPosterior):
    """phi_a . w + c s_a, c = `bonus` (Li et al. 2010)."""

    bonus: float | Tensor = constant(0.0, 5.0, (1.0, 0.3))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        phi = self.features.to(statistics["weights"])
        deviation = ((phi @ statistics["covariance"]) * phi).sum(-1).sqrt()
        return super().index(statistics) + as_constant(self.bonus, deviation, trailing=1) * deviation


@dataclass(frozen=True)
class LinThompson(LinearPosterior):
    """The mean over draws theta ~ N(w, noise^2 A^-1) of softmax(phi . theta / temperature); Thompson's law at 0.

    An approximation by `n_draws` draws, the same at every step and in every task; the index is the law's logarithm.
    """

    temperature: float | Tensor = constant(1e-3, 100.0, (0.03, 0.1))
    noise: float | Tensor = constant(0.01, 10.0, (0.3, 1.0))
    n_draws: int = 256

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        weights, phi = statistics["weights"], self.features.to(statistics["weights"])
        root = torch.linalg.cholesky(statistics["covariance"])
        noise = as_constant(self.noise, weights, trailing=2)
        theta = weights[..., None, :] + noise * _draws(self.n_draws, weights.shape[-1]).to(weights) @ root.mT
        means = theta @ phi.mT  # [*batch, draws, arms]
        return log_law((means / as_constant(self.temperature, means, trailing=2)).softmax(-1).mean(-2))

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        return soft_law(state["index"], 1.0, self.lapse)  # every draw had the temperature


@lru_cache(maxsize=8)
def _draws(n: int, d: int) -> Float[Tensor, "n d"]:
    return normals([0], "linear-thompson", 0, n, d)[0]
