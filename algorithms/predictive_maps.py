"""Learners that act on a map of what leads where: a cached one that is learnt, and one that is known.

The successor representation is learnt by temporal differences and joined with rewards when it decides; in a room whose
moves are known only the goal has to be inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from algorithms.acting import State
from algorithms.bandit import soft_law
from algorithms.control import GAMMAS, STEP_SIZES, ControlLearner, row, visit
from algorithms.learner import as_constant, constant
from tasks.interaction import Step


@dataclass(frozen=True)
class SuccessorRepresentation(ControlLearner):
    """M(x) <- M(x) + alpha (1_x + gamma M(x') - M(x)) for pairs x = (s, a), and Q = M Rhat (Dayan 1993).

    x' is the next pair of the history, at an end the mean over the own law; Rhat the mean reward of a pair, zero where
    never tried. M has (states actions)^2 numbers per task: for small problems.
    """

    step_size: float | Tensor = constant(0.0, 1.0, STEP_SIZES)
    gamma: float | Tensor = constant(0.0, 1.0, GAMMAS)

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        zeros = like.new_zeros(*like.shape, n_observations, n_actions)
        occupancy = zeros.flatten(-2)[..., None] * zeros.flatten(-2)[..., None, :]
        return {"occupancy": occupancy, "last": zeros, "visits": zeros, "rewards": zeros, "q": zeros}

    def update(self, state: State, step: Step) -> State:
        here = visit(step, state["q"])
        occupancy = self._moved(state["occupancy"], state["last"], here)
        law = soft_law(row(state["q"], step.next_observation), self.temperature, self.lapse)
        after = torch.nn.functional.one_hot(step.next_observation, here.shape[-2]).to(here.dtype)
        at_end = self._moved(occupancy, here, after[..., None] * law[..., None, :])
        done = step.done[..., None, None]
        occupancy = torch.where(done, at_end, occupancy)
        visits, rewards = state["visits"] + here, state["rewards"] + here * step.reward[..., None, None]
        mean = (rewards / visits.clamp(min=1)).flatten(-2)
        return {
            "occupancy": occupancy,
            "last": torch.where(done, 0.0, here),
            "visits": visits,
            "rewards": rewards,
            "q": (occupancy @ mean[..., None]).view(here.shape),
        }

    def table(self, state: State) -> Float[Tensor, "*batch states actions"]:
        return state["q"]

    def _moved(
        self,
        occupancy: Float[Tensor, "*batch pairs pairs"],
        last: Float[Tensor, "*batch states actions"],
        following: Float[Tensor, "*batch states actions"],
    ) -> Float[Tensor, "*batch pairs pairs"]:
        """M after one step from `last`, if there is one, to the law `following` of the next pair."""
        gamma, step_size = (as_constant(c, occupancy, trailing=2) for c in (self.gamma, self.step_size))
        last, following = last.flatten(-2)[..., None], following.flatten(-2)[..., None]
        error = last.mT + gamma * following.mT @ occupancy - last.mT @ occupancy  # [*batch, 1, pairs]
        return occupancy + step_size * last * error


@dataclass(frozen=True)
class GoalInference:
    """Knows where every move leads, and infers the goal: any cell that has not been reached without a reward.

    index(s, a) = max_g P(g) / max P gamma^(moves from where a leads to g): towards the nearest cell that may be the
    goal, and straight to the goal once a reward has shown it. `moves` [cells, actions] holds numbers of cells.
    """

    moves: Int[Tensor, "cells actions"]
    temperature: float | Tensor = constant(1e-3, 100.0, (0.01, 0.1))
    lapse: float | Tensor = constant(0.0, 1.0, (0.01,))
    gamma: float | Tensor = constant(0.05, 0.99, (0.8, 0.5))

    def start(self, like: Float[Tensor, "*batch"], n_observations: int, n_actions: int) -> State:
        return {"goal": like.new_full((*like.shape, n_observations), 1 / n_observations)}

    def law(self, state: State, observation: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        goal = state["goal"]
        ahead = self._ahead.to(goal.device)[observation].to(goal.dtype)  # [*batch, actions, cells]
        likely = goal / goal.amax(-1, keepdim=True).clamp(min=torch.finfo(goal.dtype).tiny)
        index = (as_constant(self.gamma, goal, trailing=2) ** ahead * likely[..., None, :]).amax(-1)
        return soft_law(index, self.temperature, self.lapse)

    def update(self, state: State, step: Step) -> State:
        reached = torch.nn.functional.one_hot(step.next_observation, state["goal"].shape[-1]).to(step.reward.dtype)
        left = state["goal"] * (1 - reached)
        left = left / left.sum(-1, keepdim=True).clamp(min=torch.finfo(left.dtype).tiny)
        return {"goal": torch.where(step.reward[..., None] > 0, reached, left)}

    @cached_property
    def _ahead(self) -> Int[Tensor, "cells actions cells"]:
        return distances(self.moves)[self.moves]


def distances(moves: Int[Tensor, "cells actions"]) -> Int[Tensor, "cells cells"]:
    """How many moves lead from one cell to another; as many as there are cells where none do."""
    n = len(moves)
    reached = torch.eye(n, dtype=torch.bool, device=moves.device)
    distance = torch.full((n, n), n, device=moves.device).masked_fill(reached, 0)
    for step in range(1, n):
        farther = reached | reached[moves].any(1)
        distance = distance.masked_fill(farther & ~reached, step)
        reached = farther
    return distance
