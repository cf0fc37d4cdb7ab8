"""Bandit learners whose memory fades or moves by steps, so that the order of a context matters.

Values with a constant step, with forgetting; preferences that follow the gradient; importance-weighted gains; and two
that need no values: win-stay-lose-shift, and exploring first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import LARGEST_VALUE, EmpiricalMean, IndexLearner, one_hot, soft_law
from algorithms.learner import as_constant, constant
from tasks.interaction import Step


@dataclass(frozen=True)
class ConstantStep(IndexLearner):
    """Q_a <- Q_a + alpha (r - Q_a), alpha = `step_size`, from `initial`: rewards weigh alpha (1 - alpha)^lag."""

    step_size: float | Tensor = constant(0.0, 1.0, (0.1, 0.4))
    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.5, 1.0))

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {"q": zeros + as_constant(self.initial, zeros, trailing=1)}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        return {"q": state["q"] + as_constant(self.step_size, arm, trailing=1) * arm * (reward - state["q"])}

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return statistics["q"]


@dataclass(frozen=True)
class Forgetting(ConstantStep):
    """As `ConstantStep`, and the arms not pulled go back to `initial`: Q_b <- Q_b + phi (initial - Q_b)."""

    forget: float | Tensor = constant(0.0, 1.0, (0.05, 0.3))

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        initial, forget = (as_constant(c, arm, trailing=1) for c in (self.initial, self.forget))
        faded = state["q"] + forget * (1 - arm) * (initial - state["q"])
        return super().pulled({"q": faded}, arm, reward)


@dataclass(frozen=True)
class GradientBandit(IndexLearner):
    """H_b <- H_b + alpha (r - w rbar) (1[b = a] - pi_b), pi = softmax(H), rbar the mean of the earlier rewards.

    alpha = `step_size`, w = `baseline`: 1 in Sutton and Barto (section 2.8), 0 is no baseline. rbar starts at zero.
    """

    temperature: float | Tensor = 1.0
    step_size: float | Tensor = constant(0.0, LARGEST_VALUE, (0.4, 0.1))
    baseline: float | Tensor = constant(0.0, 1.0, (1.0, 0.0))

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {"preferences": zeros, "mean_reward": zeros[..., :1], "time": zeros[..., :1]}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        step_size, baseline = (as_constant(c, arm, trailing=1) for c in (self.step_size, self.baseline))
        advantage = reward - baseline * state["mean_reward"]
        time = state["time"] + 1
        return {
            "preferences": state["preferences"] + step_size * advantage * (arm - state["preferences"].softmax(-1)),
            "mean_reward": state["mean_reward"] + (reward - state["mean_reward"]) / time,
            "time": time,
        }

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return statistics["preferences"]


@dataclass(frozen=True)
class EXP3(IndexLearner):
    """G_a <- G_a + r / pi(a), pi = (1 - lapse) softmax(eta G) + lapse / n_actions, eta = 1 / `temperature`.

    Auer et al. (2002). On a history that somebody else made, pi is still the learner's own law, which it knows.
    """

    temperature: float | Tensor = constant(1.0, 1000.0, (50.0, 20.0))
    lapse: float | Tensor = constant(0.01, 1.0, (0.1, 0.05))

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {"gains": zeros}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        return {"gains": state["gains"] + arm * reward / soft_law(state["gains"], self.temperature, self.lapse)}

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return statistics["gains"]


@dataclass(frozen=True)
class ExploreThenCommit(EmpiricalMean):
    """Uniform for `explore` pulls, and then for ever softmax of the means that they left."""

    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.0,))
    explore: float | Tensor = constant(0.0, 1000.0, (20.0, 10.0, 50.0), whole=True)

    def prior(self, zeros: Float[Tensor, "*batch arms"]) -> State:
        return {**super().prior(zeros), "time": zeros[..., :1]}

    def pulled(self, state: State, arm: Float[Tensor, "*batch arms"], reward: Float[Tensor, "*batch 1"]) -> State:
        exploring = self._exploring(state)
        return {**super().pulled(state, arm * exploring, reward), "time": state["time"] + 1}

    def index(self, statistics: State) -> Float[Tensor, "*batch arms"]:
        return torch.where(self._exploring(statistics), 0.0, self.mean(statistics))

    def _exploring(self, state: State) -> Tensor:
        return state["time"] + 0.5 < as_constant(self.explore, state["time"], trailing=1)  # 10.000...2 pulls are 10


@dataclass(frozen=True)
class WinStayLoseShift:
    """After a reward r in [0, 1] the last arm again with probability r stay + (1 - r)(1 - shift), else another one."""

    stay: float | Tensor = constant(0.0, 1.0, (0.9, 0.6))
    shift: float | Tensor = constant(0.0, 1.0, (0.9, 0.6))

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        return {"last_arm": like.new_zeros(*like.shape, n_actions), "last_reward": torch.zeros_like(like)}

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        last, reward = state["last_arm"], state["last_reward"][..., None].clamp(0, 1)
        stay, shift = (as_constant(c, last, trailing=1) for c in (self.stay, self.shift))
        again = reward * stay + (1 - reward) * (1 - shift)
        n = last.shape[-1]
        law = last * again + (1 - last) * (1 - again) / (n - 1)
        return torch.where(last.sum(-1, keepdim=True) > 0, law, 1 / n)

    def update(self, state: State, step: Step) -> State:
        return {"last_arm": one_hot(step.action, state["last_arm"]), "last_reward": step.reward}
