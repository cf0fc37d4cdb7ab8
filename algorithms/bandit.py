"""Bandit learners that choose by an index of counts and sums: means, confidence bounds, Thompson's law.

Every learner remembers named statistics per arm and the `index` by which it decides; one rule makes a law of any index:

    pi(a) = (1 - lapse) softmax(index / temperature)_a + lapse / n_actions

Here the statistics are pulls n_a and reward sums S_a, which the order of a context does not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.learner import as_constant, constant
from algorithms.optimality import beta_optimality, gaussian_optimality
from tasks.interaction import Step

# Constants that more than one learner declares.
TEMPERATURES = (0.1, 0.3)
FIRST_VALUES = (1.0, 0.5)
LARGEST_VALUE = 5.0
SMALLEST_COUNT = 1e-3


def soft_law(
    index: Float[Tensor, "*batch actions"], temperature: float | Tensor, lapse: float | Tensor
) -> Float[Tensor, "*batch actions"]:
    """(1 - lapse) softmax(index / temperature) + lapse / n_actions"""
    lapse = as_constant(lapse, index, trailing=1)
    chosen = (index / as_constant(temperature, index, trailing=1)).softmax(-1)
    return (1 - lapse) * chosen + lapse / index.shape[-1]


def log_law(law: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch actions"]:
    """ln pi, a finite number also where pi vanishes."""
    return law.clamp(min=torch.finfo(law.dtype).tiny).log()


@dataclass(frozen=True)
class Random:
    """Every action alike: it remembers nothing."""

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        return {"index": like.new_zeros(*like.shape, n_actions)}

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        return torch.full_like(state["index"], 1 / state["index"].shape[-1])

    def update(self, state: State, step: Step) -> State:
        return state


@dataclass(frozen=True)
class IndexLearner(ABC):
    """A bandit learner by its statistics [*batch, arms], how a pull changes them, and the index that they give."""

    temperature: float | Tensor = constant(1e-3, 100.0, TEMPERATURES)
    lapse: float | Tensor = constant(0.0, 1.0, (0.01,))

    @abstractmethod
    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        """The statistics before the first pull."""

    @abstractmethod
    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        """The statistics after a pull of `arm`, which is one-hot."""

    @abstractmethod
    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]: ...

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        return self._indexed(self.prior(like.new_zeros(*like.shape, n_actions)))

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        return soft_law(state["index"], self.temperature, self.lapse)

    def update(self, state: State, step: Step) -> State:
        return self._indexed(self.pulled(state, one_hot(step.action, state["index"]), step.reward[..., None]))

    def _indexed(self, statistics: State) -> State:
        return {**statistics, "index": self.index(statistics)}


def one_hot(number: Int[Tensor, "*batch"], like: Tensor) -> Float[Tensor, "*batch actions"]:
    """In the precision, and as long as the last axis, of `like`."""
    return torch.nn.functional.one_hot(number, like.shape[-1]).to(like.dtype)


@dataclass(frozen=True)
class _Counting(IndexLearner):
    """Pulls n_a and reward sums S_a."""

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {"pulls": zeros, "rewards": zeros}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        return {"pulls": state["pulls"] + arm, "rewards": state["rewards"] + arm * reward}


@dataclass(frozen=True)
class EmpiricalMean(_Counting):
    """m_a = S_a / n_a.

    An arm never pulled has the value `initial`, which its first pull overwrites (Sutton and Barto, section 2.6): an
    infinite index would have no gradient and forbid all other arms; above the largest reward, every arm is tried once.
    """

    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, FIRST_VALUES)

    def mean(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        pulls, initial = statistics["pulls"], as_constant(self.initial, statistics["pulls"], trailing=1)
        return torch.where(pulls > 0, statistics["rewards"] / pulls.clamp(min=torch.finfo(pulls.dtype).tiny), initial)

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return self.mean(statistics)


@dataclass(frozen=True)
class PosteriorMean(_Counting):
    """(S_a + k mu0) / (n_a + k), k = `strength`: Beta(1, 1) has k = 2, a Gaussian prior noise variance / its own."""

    strength: float | Tensor = constant(SMALLEST_COUNT, 100.0, (2.0, 0.5))
    prior_mean: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.5, 1.0))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        strength, mean = (as_constant(c, statistics["pulls"], trailing=1) for c in (self.strength, self.prior_mean))
        return (statistics["rewards"] + strength * mean) / (statistics["pulls"] + strength)


def _seen(pulls: Float[Tensor, "*batch arms"]) -> Float[Tensor, "*batch arms"]:
    """An arm never pulled is as uncertain as one that was pulled once: its bonus stays finite and has a gradient."""
    return torch.where(pulls > 0, pulls, 1.0).clamp(min=SMALLEST_COUNT)


@dataclass(frozen=True)
class UCB(EmpiricalMean):
    """m_a + c / sqrt(n_a), c = `bonus`; an arm never pulled has `initial` + c, see `EmpiricalMean`."""

    bonus: float | Tensor = constant(0.0, LARGEST_VALUE, (1.0, 0.3))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        bonus = as_constant(self.bonus, statistics["pulls"], trailing=1)
        return self.mean(statistics) + bonus * _seen(statistics["pulls"]).rsqrt()


@dataclass(frozen=True)
class LCB(EmpiricalMean):
    """m_a - c / sqrt(n_a), c = `malus`; an arm never pulled has `initial` - c, see `EmpiricalMean`."""

    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.0, 0.5))
    malus: float | Tensor = constant(0.0, LARGEST_VALUE, (1.0, 0.3))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        malus = as_constant(self.malus, statistics["pulls"], trailing=1)
        return self.mean(statistics) - malus * _seen(statistics["pulls"]).rsqrt()


@dataclass(frozen=True)
class UCB1(EmpiricalMean):
    """m_a + c sqrt(2 ln t / n_a) after t pulls, c = `bonus`, 1 in Auer et al. (2002); never pulled: as after one."""

    bonus: float | Tensor = constant(0.0, LARGEST_VALUE, (1.0, 0.2))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        pulls = statistics["pulls"]
        # the square root has no slope at zero, where t is 1
        twice_log = (2 * pulls.sum(-1, keepdim=True).clamp(min=1).log()).clamp(min=1e-24)
        return self.mean(statistics) + as_constant(self.bonus, pulls, trailing=1) * (twice_log / _seen(pulls)).sqrt()


@dataclass(frozen=True)
class DiscountedUCB(UCB1):
    """UCB1 on pulls and sums that fade by `discount` per step, whoever is pulled (Garivier and Moulines 2008)."""

    discount: float | Tensor = constant(0.5, 1.0, (0.95, 0.8))

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        discount = as_constant(self.discount, arm, trailing=1)
        faded = {name: discount * state[name] for name in ("pulls", "rewards")}
        return super().pulled(faded, arm, reward)


@dataclass(frozen=True)
class Thompson(_Counting):
    """Thompson's law on coins: the posterior probability that an arm is the best, p_a = int f_a prod_b F_b dx.

    Posteriors are Beta(prior_wins + S_a, prior_losses + n_a - S_a); the index is ln p, so that temperature 1 is
    Thompson's law, and a low one plays the arm that is most probably best. Rewards are cut to between 0 and 1.
    """

    temperature: float | Tensor = constant(1e-3, 100.0, (1.0,))
    lapse: float | Tensor = constant(0.0, 1.0, (0.0, 0.01))
    prior_wins: float | Tensor = constant(0.5, 20.0, (1.0, 2.0))
    prior_losses: float | Tensor = constant(0.5, 20.0, (1.0, 2.0))

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        return super().pulled(state, arm, reward.clamp(0, 1))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        pulls, rewards = statistics["pulls"], statistics["rewards"]
        wins = as_constant(self.prior_wins, pulls, trailing=1) + rewards
        losses = as_constant(self.prior_losses, pulls, trailing=1) + pulls - rewards
        return log_law(beta_optimality(wins, losses))


@dataclass(frozen=True)
class GaussianThompson(_Counting):
    """Thompson's law where rewards are N(mu_a, noise^2), mu_a ~ N(prior_mean, prior_sd^2); index as in `Thompson`."""

    temperature: float | Tensor = constant(1e-3, 100.0, (1.0,))
    lapse: float | Tensor = constant(0.0, 1.0, (0.0, 0.01))
    prior_mean: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.5,))
    prior_sd: float | Tensor = constant(0.01, 10.0, (12**-0.5, 1.0))
    noise: float | Tensor = constant(0.01, 10.0, (0.3, 1.0))

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        pulls = statistics["pulls"]
        mean, sd, noise = (as_constant(c, pulls, trailing=1) for c in (self.prior_mean, self.prior_sd, self.noise))
        precision = sd**-2 + pulls * noise**-2
        return log_law(
            gaussian_optimality((mean * sd**-2 + statistics["rewards"] * noise**-2) / precision, precision.rsqrt())
        )
