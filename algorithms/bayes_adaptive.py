"""What is best when information pays: Bayesian bandits of coins, Beta(1, 1) each, with a known number of pulls left.

With two arms the best policy is computed whole; with more, by an index per arm: the rate of a sure reward that would
make one indifferent between it and the arm (Gittins 1979; with a finite horizon, Bradt, Johnson and Karlin 1956).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import IndexLearner
from algorithms.learner import constant
from tasks.errors import ConfigError

LARGEST_HORIZON = 30  # of two arms: the table has (horizon + 1)^4 cells
RATES = 200  # sure rewards that are tried for an index: it is known to within 1 / RATES squared


@dataclass(frozen=True)
class _Adaptive(IndexLearner):
    """Wins and losses of every arm, a reward above one half being a win; the pulls that are left follow from them."""

    temperature: float | Tensor = constant(1e-3, 100.0, (0.1, 0.02))
    horizon: int = 20

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {"wins": zeros, "losses": zeros}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        reward = (reward > 0.5).to(arm.dtype)
        return {"wins": state["wins"] + arm * reward, "losses": state["losses"] + arm * (1 - reward)}

    def _counts(self, statistics: State) -> tuple[Tensor, Tensor, Tensor]:
        """Wins and losses [*batch, arms] and pulls left [*batch] as whole numbers; the last pull stays the last."""
        wins, losses = (statistics[name].round().long() for name in ("wins", "losses"))
        return wins, losses, (self.horizon - (wins + losses).sum(-1)).clamp(min=1)


@dataclass(frozen=True)
class BayesOptimal(_Adaptive):
    """The expected sum of all rewards to come of each of two arms, by dynamic programming over wins and losses.

    Raises ConfigError for any other number of arms, and for horizons above LARGEST_HORIZON.
    """

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        if zeros.shape[-1] != 2 or not 1 <= self.horizon <= LARGEST_HORIZON:
            raise ConfigError(
                f"{zeros.shape[-1]} arms and a horizon of {self.horizon}: the best policy is computed for 2 arms and "
                f"horizons from 1 to {LARGEST_HORIZON}; 'gittins' has an index for more"
            )
        return super().prior(zeros)

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        wins, losses, _ = self._counts(statistics)
        within = torch.stack([wins, losses], -1).flatten(-2).clamp(max=self.horizon - 1).unbind(-1)
        return two_armed_values(self.horizon).to(wins.device)[within].to(statistics["wins"].dtype)


@dataclass(frozen=True)
class Gittins(_Adaptive):
    """The index of an arm with so many wins, losses and pulls left; optimal for one arm against a sure reward."""

    horizon: int = 100

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        wins, losses, left = self._counts(statistics)
        last = self.horizon - 1
        at = left[..., None] - 1, wins.clamp(max=last), losses.clamp(max=last)
        return finite_horizon_index(self.horizon).to(wins.device)[at].to(statistics["wins"].dtype)


@lru_cache(maxsize=4)
def two_armed_values(horizon: int) -> Float[Tensor, "wins losses wins losses arms"]:
    """Q(w1, l1, w2, l2, a): the expected rewards of the horizon - w1 - l1 - w2 - l2 pulls left, the first of arm a."""
    n = torch.arange(horizon, dtype=torch.float64)
    mean = (1 + n[:, None]) / (2 + n[:, None] + n)
    first, second = mean[:, :, None, None], mean[None, None]
    values = torch.zeros(horizon + 1, horizon + 1, horizon + 1, horizon + 1, dtype=torch.float64)
    q = torch.zeros(horizon, horizon, horizon, horizon, 2, dtype=torch.float64)
    pulls = (n[:, None] + n)[:, :, None, None] + (n[:, None] + n)
    for total in reversed(range(horizon)):
        here = pulls == total
        one = first * (1 + values[1:, :-1, :-1, :-1]) + (1 - first) * values[:-1, 1:, :-1, :-1]
        two = second * (1 + values[:-1, :-1, 1:, :-1]) + (1 - second) * values[:-1, :-1, :-1, 1:]
        both = torch.stack([one, two], -1)
        q[here] = both[here]
        values[:-1, :-1, :-1, :-1][here] = both.amax(-1)[here]
    return q


@lru_cache(maxsize=4)
def finite_horizon_index(horizon: int) -> Float[Tensor, "left wins losses"]:
    """The rate lambda at which playing the arm once more, with the right to retire later, is worth retiring now.

    With v(w, l, k) what the arm earns beyond lambda per pull in k pulls, with retirement allowed,
    advantage = p - lambda + p v(w + 1, l, k - 1) + (1 - p) v(w, l + 1, k - 1),  v = max(0, advantage);
    the advantage falls with lambda, and the index is its zero.
    """
    n = torch.arange(horizon, dtype=torch.float32)
    mean = (1 + n[:, None]) / (2 + n[:, None] + n)
    rates = (torch.arange(RATES + 1) / RATES)[:, None, None]
    values = torch.zeros(RATES + 1, horizon + 1, horizon + 1)
    index = []
    for _ in range(horizon):
        advantage = mean - rates + mean * values[:, 1:, :-1] + (1 - mean) * values[:, :-1, 1:]
        above = (advantage > 0).sum(0).clamp(min=1, max=RATES)[None]  # the first rate that is too high
        low, high = (advantage.gather(0, above - k)[0] for k in (1, 0))
        index.append((above[0] - 1 + low / (low - high)) / RATES)
        values[:, :-1, :-1] = advantage.clamp(min=0)
    return torch.stack(index)
