"""Learners that act on a model: counts of transitions and sums of rewards, planned on anew at every step.

    That(s' | s, a) = (N(s, a, s') + eta) / (N(s, a) + eta n_states),   Rhat(s, a) = S(s, a) / N(s, a)
    Q_{k+1}(s, a) = Rhat(s, a) + gamma sum_s' That(s' | s, a) max_b Q_k(s', b),   Q_0 = 0

A state in which episodes have ended and nobody has acted is an end, worth nothing; see algorithms/control.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import log_law, soft_law
from algorithms.control import GAMMAS, ControlLearner, row, visit
from algorithms.learner import as_constant, constant
from tasks.interaction import Step
from tasks.streams import normals, uniforms

PSEUDO_COUNTS = (0.0, 0.1)


@dataclass(frozen=True)
class CertaintyEquivalence(ControlLearner):
    """`n_sweeps` sweeps of value iteration on the model that the counts are, as if it were certain.

    eta = `pseudo_count`; with none, what was never tried is worth nothing. n_sweeps = 1 is the myopic learner.
    """

    n_sweeps: int = 30
    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)
    pseudo_count: float | Tensor = constant(0.0, 10.0, PSEUDO_COUNTS)

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = like.new_zeros(*like.shape, n_observations, n_actions)
        return self._planned(
            {
                "transitions": zeros[..., None].expand(*zeros.shape, n_observations),
                "rewards": zeros,
                "ends": zeros[..., 0],
            }
        )

    def update(self, state: State, step: Step) -> State:
        here = visit(step, state["rewards"])
        after = torch.nn.functional.one_hot(step.next_observation, here.shape[-2]).to(here.dtype)
        return self._planned(
            {
                "transitions": state["transitions"] + here[..., None] * after[..., None, None, :],
                "rewards": state["rewards"] + here * step.reward[..., None, None],
                "ends": state["ends"] + after * step.done[..., None],
            }
        )

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["q"]

    def bonus(self, visits: Float[Tensor, "*batch states actions"]) -> Float[Tensor, "*batch states actions"]:
        """What is added to rewards for being unknown."""
        return torch.zeros_like(visits)

    def _planned(self, model: State) -> State:
        visits = model["transitions"].sum(-1)
        eta = as_constant(self.pseudo_count, visits, trailing=3)
        counts = model["transitions"] + eta
        transitions = counts / counts.sum(-1, keepdim=True).clamp(min=torch.finfo(visits.dtype).tiny)
        rewards = model["rewards"] / visits.clamp(min=1) + self.bonus(visits)
        return {**model, "q": planned(rewards, transitions, _over(model), self.gamma, self.n_sweeps)}


def _over(model: State) -> Bool[Tensor, "*batch states"]:
    """Where episodes have ended and nobody has acted."""
    return (model["ends"] > 0) & (model["transitions"].sum((-2, -1)) == 0)


def planned(
    rewards: Float[Tensor, "*batch states actions"],
    transitions: Float[Tensor, "*batch states actions states"],
    over: Bool[Tensor, "*#batch states"],
    gamma: float | Tensor,
    n_sweeps: int,
) -> Float[Tensor, "*batch states actions"]:
    """Q after n_sweeps of value iteration from zero; states that are over have no value."""
    discount = as_constant(gamma, rewards, trailing=2)
    kernel = transitions.flatten(-3, -2)
    q = torch.zeros_like(rewards)
    for _ in range(n_sweeps):
        values = q.amax(-1).masked_fill(over, 0.0)
        q = rewards + discount * (kernel @ values[..., None]).view(rewards.shape)
    return q


@dataclass(frozen=True)
class UCBVI(CertaintyEquivalence):
    """Value iteration with a bonus c sqrt(ln(n_states n_actions t) / N(s, a)), c = `bonus_size` (Azar et al. 2017).

    A pair never tried has the bonus of one tried once.
    """

    bonus_size: float | Tensor = constant(0.0, 5.0, (0.3, 1.0))

    def bonus(self, visits: Float[Tensor, "*batch states actions"]) -> Float[Tensor, "*batch states actions"]:
        steps = visits.sum((-2, -1), keepdim=True).clamp(min=1)
        logarithm = (steps * visits.shape[-1] * visits.shape[-2]).log()
        return as_constant(self.bonus_size, visits, trailing=2) * (logarithm / visits.clamp(min=1)).sqrt()


@dataclass(frozen=True)
class PosteriorSampling(CertaintyEquivalence):
    """The mean over `n_draws` models from the posterior of softmax(Q / temperature): pi(a | s) = P(a optimal at s).

    Transitions are Dirichlet(eta + N(s, a, .)), eta = `pseudo_count`; mean rewards have the prior N(prior_mean,
    prior_sd^2) and are seen with `noise` (arXiv 1306.0940). An approximation: the draws are few and the same at every
    step and in every task, functions of `seed`, and Gamma draws follow Wilson and Hilferty.
    """

    lapse: float | Tensor = constant(0.0, 1.0, (0.0, 0.01))
    n_draws: int = 16
    seed: int = 0
    pseudo_count: float | Tensor = constant(0.01, 10.0, (0.1, 1.0))
    prior_mean: float | Tensor = constant(-5.0, 5.0, (0.0, 0.5))
    prior_sd: float | Tensor = constant(0.01, 10.0, (0.3, 1.0))
    noise: float | Tensor = constant(0.01, 10.0, (0.1, 1.0))

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return log_law(state["optimality"])

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        return soft_law(row(self.table(state), observation), 1.0, self.lapse)  # every draw had the temperature

    def _planned(self, model: State) -> State:
        visits = model["transitions"].sum(-1)
        normal, uniform = _draws(self.seed, self.n_draws, visits.shape[-2], visits.shape[-1])
        axes = (slice(None), *[None] * (visits.ndim - 2))  # [draws, 1 ..., states, actions(, 1 + states)]
        normal, uniform = (x.to(visits)[axes] for x in (normal, uniform))
        counts = model["transitions"] + as_constant(self.pseudo_count, visits, trailing=3)
        gammas = _gamma(counts, normal[..., 1:], uniform)
        transitions = gammas / gammas.sum(-1, keepdim=True).clamp(min=torch.finfo(visits.dtype).tiny)
        mean, sd, noise = (as_constant(c, visits, trailing=2) for c in (self.prior_mean, self.prior_sd, self.noise))
        precision = sd**-2 + visits * noise**-2
        rewards = (mean * sd**-2 + model["rewards"] * noise**-2) / precision + normal[..., 0] * precision.rsqrt()
        q = planned(rewards, transitions, _over(model), self.gamma, self.n_sweeps)
        optimality = (q / as_constant(self.temperature, visits, trailing=2)).softmax(-1).mean(0)
        return {**model, "q": q.mean(0), "optimality": optimality}


def _gamma(shape: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
    """Gamma(shape) draws: those of shape + 1, nearly the cube of a normal, times U^(1/shape)."""
    more = shape + 1
    cube = (1 - 1 / (9 * more) + normal / (3 * more.sqrt())).clamp(min=0) ** 3
    return more * cube * uniform.clamp(min=1e-6) ** (1 / shape)


@lru_cache(maxsize=8)
def _draws(seed: int, n: int, states: int, actions: int) -> tuple[Tensor, Tensor]:
    """[n, states, actions, 1 + states] normals, the first for rewards, and [n, states, actions, states] uniforms."""
    purpose = "posterior-sampling"
    (normal,) = normals([seed], purpose, 0, n, states, actions, 1 + states)
    (uniform,) = uniforms([seed], purpose, 1, n, states, actions, states)
    return normal, uniform
