"""Learners that act in decision problems of few states by values, returns or preferences per state and action.

States are observation numbers. Values bootstrap from wherever a step has led, also where an episode stopped there: a
time limit is no end (Pardo et al. 2018, arXiv 1712.00378), and at a terminal state nobody ever acts, so that it keeps
its first value. What credits earlier steps with a reward stays within an episode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import LARGEST_VALUE, TEMPERATURES, soft_law
from algorithms.learner import as_constant, constant
from tasks.interaction import Step

STEP_SIZES = (0.1, 0.4)
GAMMAS = (0.9, 0.6)


@dataclass(frozen=True)
class ControlLearner(ABC):
    """Acts by the soft law of one row of a table [*batch, states, actions]."""

    temperature: float | Tensor = constant(1e-3, 100.0, TEMPERATURES)
    lapse: float | Tensor = constant(0.0, 1.0, (0.01,))

    @abstractmethod
    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        """By which index actions are chosen in every state."""

    @abstractmethod
    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State: ...

    @abstractmethod
    def update(self, state: State, step: Step) -> State: ...

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        return soft_law(row(self.table(state), observation), self.temperature, self.lapse)


def row(table: Float[Tensor, "*batch states k"], observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch k"]:
    """The entries of one state per task."""
    index = observation[..., None, None].expand(*observation.shape, 1, table.shape[-1])
    return table.gather(-2, index)[..., 0, :]


def visit(step: Step, like: Float[Tensor, "*batch states actions"]) -> Float[Tensor, "*batch states actions"]:
    """One at the state and action of the step, zero elsewhere."""
    flat = step.observation * like.shape[-1] + step.action
    return torch.zeros_like(like).flatten(-2).scatter(-1, flat[..., None], 1.0).view(like.shape)


def _tables(like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> Tensor:
    return like.new_zeros(*like.shape, n_observations, n_actions)


def _total(table: Float[Tensor, "*batch states actions"]) -> Float[Tensor, "*batch"]:
    return table.sum((-2, -1))


def _within(step: Step, table: Tensor) -> Tensor:
    """What is remembered of an episode, unless it has ended."""
    return torch.where(step.done[..., None, None], 0.0, table)


@dataclass(frozen=True)
class MonteCarlo(ControlLearner):
    """The mean return of every visit, Q(s, a) = mean of G_t over visits t; G_t so far in an episode that still runs.

    A reward pays to every earlier visit of its episode what is left of it, gamma^age. Never visited: `initial`.
    """

    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)
    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.0, 0.5))

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = _tables(like, n_observations, n_actions)
        initial = as_constant(self.initial, zeros, trailing=2)
        return {"visits": zeros, "returns": zeros, "trace": zeros, "q": zeros + initial}

    def update(self, state: State, step: Step) -> State:
        here = visit(step, state["q"])
        gamma, initial = (as_constant(c, here, trailing=2) for c in (self.gamma, self.initial))
        trace = gamma * state["trace"] + here
        visits, returns = state["visits"] + here, state["returns"] + trace * step.reward[..., None, None]
        q = torch.where(visits > 0, returns / visits.clamp(min=1), initial)
        return {"visits": visits, "returns": returns, "trace": _within(step, trace), "q": q}

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["q"]


@dataclass(frozen=True)
class _OneStep(ControlLearner):
    """Q(s, a) <- Q(s, a) + alpha delta, delta = r + gamma (what s' is worth) - Q(s, a), alpha = `step_size`."""

    step_size: float | Tensor = constant(0.0, 1.0, STEP_SIZES)
    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)
    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.0, 0.5))

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        q = _tables(like, n_observations, n_actions) + as_constant(self.initial, like, trailing=2)
        return {"q": q, "td_error": torch.zeros_like(like)}

    @abstractmethod
    def worth(self, q: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
        """The value of a state with these action values."""

    def update(self, state: State, step: Step) -> State:
        q, here = state["q"], visit(step, state["q"])
        gamma, step_size = as_constant(self.gamma, step.reward), as_constant(self.step_size, q, trailing=2)
        td_error = step.reward + gamma * self.worth(row(q, step.next_observation)) - _total(here * q)
        return {"q": q + step_size * td_error[..., None, None] * here, "td_error": td_error}

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["q"]


@dataclass(frozen=True)
class QLearning(_OneStep):
    """delta = r + gamma max_b Q(s', b) - Q(s, a) (Watkins 1989)."""

    def worth(self, q: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
        return q.amax(-1)


@dataclass(frozen=True)
class ExpectedSarsa(_OneStep):
    """delta = r + gamma sum_b pi(b | s') Q(s', b) - Q(s, a), pi the learner's own law."""

    def worth(self, q: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch"]:
        return (soft_law(q, self.temperature, self.lapse) * q).sum(-1)


@dataclass(frozen=True)
class Sarsa(ExpectedSarsa):
    """delta = r + gamma Q(s', a') - Q(s, a), made when the next action a' is known; the own law's mean at an end."""

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        started = super().start(like, n_observations, n_actions)
        return {**started, "last": torch.zeros_like(started["q"]), "last_reward": torch.zeros_like(like)}

    def update(self, state: State, step: Step) -> State:
        q, last, here = state["q"], state["last"], visit(step, state["q"])
        gamma, step_size = as_constant(self.gamma, step.reward), as_constant(self.step_size, q, trailing=2)
        td_error = state["last_reward"] + gamma * _total(here * q) - _total(last * q)
        q = q + step_size * td_error[..., None, None] * last
        at_end = super().update({"q": q}, step)
        done = step.done[..., None, None]
        return {
            "q": torch.where(done, at_end["q"], q),
            "td_error": torch.where(step.done, at_end["td_error"], td_error * _total(last)),
            "last": _within(step, here),
            "last_reward": step.reward,
        }


@dataclass(frozen=True)
class PolicyGradient(ControlLearner):
    """theta <- theta + alpha r_t z_t, z_t = gamma z_{t-1} + grad ln pi(a_t | s_t), pi = softmax(theta(s, .)).

    REINFORCE's alpha G_t grad ln pi(a_t | s_t), paid out as rewards come in (Williams 1992; Baxter and Bartlett 2001),
    with alpha = `step_size`; z starts anew with every episode.
    """

    temperature: float | Tensor = 1.0
    step_size: float | Tensor = constant(0.0, 10.0, (0.5, 0.1))
    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = _tables(like, n_observations, n_actions)
        return {"preferences": zeros, "trace": zeros}

    def update(self, state: State, step: Step) -> State:
        preferences = state["preferences"]
        gamma, step_size = (as_constant(c, preferences, trailing=2) for c in (self.gamma, self.step_size))
        trace = gamma * state["trace"] + _log_gradient(preferences, step)
        moved = preferences + step_size * step.reward[..., None, None] * trace
        return {"preferences": moved, "trace": _within(step, trace)}

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["preferences"]


def _log_gradient(
    preferences: Float[Tensor, "*batch states actions"], step: Step
) -> Float[Tensor, "*batch states actions"]:
    """grad ln softmax(preferences(s, .))_a = 1[s] (1[a] - pi)"""
    here = visit(step, preferences)
    return here - here.sum(-1, keepdim=True) * preferences.softmax(-1)


@dataclass(frozen=True)
class ActorCritic(ControlLearner):
    """delta = r + gamma V(s') - V(s); V(s) <- V(s) + alpha delta, H(s, .) <- H(s, .) + beta delta (1[a] - pi(. | s)).

    alpha = `step_size`, beta = `actor_step`, pi = softmax(H(s, .)).
    """

    temperature: float | Tensor = 1.0
    step_size: float | Tensor = constant(0.0, 1.0, STEP_SIZES)
    actor_step: float | Tensor = constant(0.0, 10.0, (0.5, 0.1))
    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = _tables(like, n_observations, n_actions)
        return {"v": zeros[..., 0], "preferences": zeros, "td_error": torch.zeros_like(like)}

    def update(self, state: State, step: Step) -> State:
        v, preferences = state["v"], state["preferences"]
        here, after = (row(v[..., None], seen)[..., 0] for seen in (step.observation, step.next_observation))
        td_error = step.reward + as_constant(self.gamma, v[..., 0]) * after - here
        moved = as_constant(self.step_size, td_error) * td_error
        beta = as_constant(self.actor_step, preferences, trailing=2)
        return {
            "v": v.scatter_add(-1, step.observation[..., None], moved[..., None]),
            "preferences": preferences + beta * td_error[..., None, None] * _log_gradient(preferences, step),
            "td_error": td_error,
        }

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["preferences"]


@dataclass(frozen=True)
class EpisodicControl(ControlLearner):
    """The best return that ever followed (s, a), from its first visit in an episode on (Blundell et al. 2016).

    At least `initial`; the running episode counts with what it has brought so far.
    """

    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)
    initial: float | Tensor = constant(-LARGEST_VALUE, LARGEST_VALUE, (0.0,))

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = _tables(like, n_observations, n_actions)
        best = zeros + as_constant(self.initial, zeros, trailing=2)
        return {"best": best, "trace": zeros, "return_so_far": zeros, "q": best}

    def update(self, state: State, step: Step) -> State:
        trace = as_constant(self.gamma, state["q"], trailing=2) * state["trace"]
        trace = torch.where(state["trace"] > 0, trace, visit(step, trace))
        so_far = state["return_so_far"] + trace * step.reward[..., None, None]
        q = torch.where(trace > 0, torch.maximum(state["best"], so_far), state["best"])
        best = torch.where(step.done[..., None, None], q, state["best"])
        return {"best": best, "trace": _within(step, trace), "return_so_far": _within(step, so_far), "q": q}

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["q"]
