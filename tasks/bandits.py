"""Bandits: one state, and arms whose mean rewards differ from task to task.

Settings follow section 4 and the appendix of arXiv 2306.14892 (Gaussian and linear arms), arXiv 1611.02779 (Bernoulli)
and arXiv 2210.14215 (the better arms are odd ones in most training tasks, and even ones in most test tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv
from torch import Tensor

from tasks.decision import DecisionTasks
from tasks.errors import ConfigError, require
from tasks.streams import normals, stream, uniforms

KINDS = ("bernoulli", "gaussian", "linear")


@dataclass(frozen=True)
class BanditFamily:
    """A distribution over bandits of n_arms arms.

    Means are Beta(*prior), uniform by default; Bernoulli rewards are coins, others the mean plus `noise` times N(0, 1).
    `odd_share` raises the means of one half of the arms to (1 + m) / 2 and lowers the other's to m / 2: the odd
    arms (1, 3, ...) are the better half in that share of tasks, the even ones in the others.

    Linear arms have features phi_a ~ N(0, I / d) that are the same in all tasks, a function of `arms_seed`, and means
    phi_a^T theta with theta ~ N(0, I / d) of each task.
    """

    kind: str = "bernoulli"
    n_arms: int = 5
    prior: tuple[float, float] = (1.0, 1.0)
    odd_share: float | None = None
    noise: float = 0.3
    d_features: int = 2
    arms_seed: int = 0

    def __post_init__(self) -> None:
        require("kind", self.kind, KINDS)
        for name, at_least in (("n_arms", 2), ("d_features", 1), ("noise", 0)):
            if getattr(self, name) < at_least:
                raise ConfigError(f"{name} is {getattr(self, name)}; allowed: at least {at_least}")
        if min(self.prior) <= 0:
            raise ConfigError(f"prior is Beta{self.prior}; its two parameters must be above 0")
        if self.odd_share is not None and not 0 <= self.odd_share <= 1:
            raise ConfigError(f"odd_share is {self.odd_share}; allowed: 0 to 1, the share of tasks")
        if self.kind == "linear" and (self.odd_share is not None or self.prior != (1.0, 1.0)):
            raise ConfigError("the means of linear arms follow from their features: leave prior and odd_share unset")

    @property
    def features(self) -> Float[Tensor, "arms d"]:
        """phi of every linear arm."""
        draws = torch.randn(self.n_arms, self.d_features, generator=stream(self.arms_seed, "arms"))
        return draws / self.d_features**0.5

    def draw(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> DecisionTasks:
        """n bandits per seed, batch axes (seeds, n): batch `index` of the stream `purpose`."""
        if self.kind == "linear":
            theta = normals(seeds, f"{purpose}/theta", index, n, self.d_features) / self.d_features**0.5
            means = (theta[..., None, :] * self.features).sum(-1)
        else:
            means = self._means(uniforms(seeds, f"{purpose}/means", index, n, self.n_arms))
        if self.odd_share is not None:
            odd_better = uniforms(seeds, f"{purpose}/half", index, n, 1) < self.odd_share
            better = odd_better == (torch.arange(self.n_arms) % 2 == 1)
            means = (means + better) / 2
        return bandits(means, noise=None if self.kind == "bernoulli" else self.noise)

    def _means(self, draws: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.prior == (1.0, 1.0):
            return draws
        return torch.from_numpy(betaincinv(*self.prior, draws.double().numpy())).to(draws)


def bandits(means: Float[Tensor, "*batch arms"], *, noise: float | None = None) -> DecisionTasks:
    """Bandits of these means: coins of that bias, or Gaussian where a standard deviation is given."""
    n_arms = means.shape[-1]
    nowhere: Int[Tensor, "arms one"] = torch.zeros(n_arms, 1, dtype=torch.int64)
    batch = means.shape[:-1]
    return DecisionTasks(
        successors=nowhere.expand(*batch, 1, n_arms, 1),
        probabilities=torch.ones(()).to(means).expand(*batch, 1, n_arms, 1),
        rewards=means[..., None, :, None],
        start=torch.ones(()).to(means).expand(*batch, 1),
        terminal=torch.zeros((), dtype=torch.bool).expand(*batch, 1),
        observations=(0,),
        reward_law="bernoulli" if noise is None else "gaussian",
        noise=noise or 0.0,
    )


def best_arms(tasks: DecisionTasks) -> Int[Tensor, "*batch"]:
    """The arm of the largest mean."""
    return tasks.mean_rewards[..., 0, :].argmax(-1)
