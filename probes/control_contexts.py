"""Contexts of decision problems in which what a policy may carry comes apart, and pairs that differ in one thing.

On its own roll-outs a policy sees what it prefers. Walks whose actions nobody chose for their worth part counts from
values, skewed ones part what is often tried from what is good, and a reward that moves half-way parts recent from early
ones. A pair of counterfactual contexts differs in what one hypothesis says of the asked state, and in nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from algorithms.control import row
from tasks.decision import DecisionFamily
from tasks.interaction import Interaction, interleaved
from tasks.rollout import random_walk, roll_out
from tasks.streams import uniforms

KINDS = ("uniform", "skewed", "moved")


def walk_of_kind(kind: str, family: DecisionFamily, n_steps: int, n: int, purpose: str) -> Interaction:
    """n contexts (1, n) of a kind, in tasks of its own.

    uniform: random actions; skewed: a law of actions per state, Dirichlet(1/2, ..., 1/2); moved: random actions, and
    half-way the rewards of all states go over to other states, which needs rewards that come on arrival.
    """
    purpose = f"{purpose}/{kind}"
    tasks = family.draw([0], purpose, 0, n)
    if kind == "skewed":
        draws = uniforms([0], f"{purpose}/laws", 0, n, tasks.n_states, tasks.n_actions)
        weights = torch.special.ndtri(draws.clamp(1e-6, 1 - 1e-6)).square()  # chi-square of one: Gamma(1/2)
        laws = weights / weights.sum(-1, keepdim=True)
        return roll_out(tasks, lambda seen: row(laws, seen), n_steps, purpose=f"{purpose}/walk")
    walk = random_walk(tasks, n_steps, purpose=f"{purpose}/walk")
    if kind == "uniform":
        return walk
    late = torch.arange(n_steps) >= n_steps // 2
    return replace(walk, reward=torch.where(late, moved(walk, other_places(walk, purpose)).reward, walk.reward))


def designed_walks(family: DecisionFamily, n_steps: int, n: int, purpose: str) -> Interaction:
    """n contexts of every kind, (1, 3 n); context i is of kind KINDS[i % 3]. Rewards must come on arrival."""
    return interleaved([walk_of_kind(kind, family, n_steps, n, purpose) for kind in KINDS])


def other_places(history: Interaction, purpose: str) -> Int[Tensor, "*batch observations"]:
    """Per task, the observation that each one's rewards go over to: a turn of their numbers by at least one."""
    n = history.n_observations
    turn = 1 + (uniforms([0], f"{purpose}/turn", 0, history.batch[1]) * (n - 1)).long()
    return (torch.arange(n) + turn[..., None]) % n


def moved(history: Interaction, to: Int[Tensor, "*batch observations"]) -> Interaction:
    """The same walk where to reach observation i is worth what it was to reach to[i], zero where nobody did."""
    unknown = torch.zeros(*history.batch, history.n_observations, dtype=history.reward.dtype)
    worth = unknown.scatter_reduce(-1, history.next_observation, history.reward, "amax")
    return replace(history, reward=worth.gather(-1, to).gather(-1, history.next_observation))


def exchanged(history: Interaction, asked: Int[Tensor, "*batch"]) -> Interaction:
    """The same walk where the actions of the asked observation have other names, each that of the next one.

    Whoever has learnt from both then wants the other action there, and the same everywhere else.
    """
    here = history.observation == asked[..., None]
    return replace(history, action=torch.where(here, (history.action + 1) % history.n_actions, history.action))
