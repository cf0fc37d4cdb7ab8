"""Contexts in which bandit learners differ: pulls that nobody chose for their worth, worths that change, and own ones.

On what a policy does by itself, or on evenly spread pulls, the rivals' quantities are nearly one another (the mean
explains .99 of a confidence bound, pulls .89 of the probability of being best). Skewed pulls part means from
uncertainty, a switch of all arms' means parts recent rewards from early ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import interact
from algorithms.bandit import Thompson
from tasks.decision import DecisionFamily, DecisionTasks
from tasks.interaction import Interaction, in_time, interleaved
from tasks.rollout import roll_out
from tasks.streams import uniforms

KINDS = ("skewed", "switched", "thompson")


def designed(family: DecisionFamily, n_steps: int, n: int, purpose: str) -> Interaction:
    """n contexts of every kind, (1, 3 n), all of tasks of their own; context i is of kind KINDS[i % 3]."""
    drawn = family.draw([0], purpose, 0, 4 * n)
    skewed, before, after, own = (drawn.select(slice(i * n, (i + 1) * n)) for i in range(4))
    laws = skewed_laws(purpose, 2 * n, drawn.n_actions)
    first = n_steps // 2
    kinds = (
        pulled(skewed, laws[:, :n], n_steps, f"{purpose}/skewed"),
        in_time(
            pulled(before, laws[:, n:], first, f"{purpose}/before"),
            pulled(after, laws[:, n:], n_steps - first, f"{purpose}/after"),
        ),
        interact(Thompson(), own, n_steps, purpose=f"{purpose}/thompson"),
    )
    return interleaved(kinds)


def skewed_laws(purpose: str, n: int, n_actions: int) -> Float[Tensor, "1 n actions"]:
    """Dirichlet(1/2, ..., 1/2) laws of actions: some arms are pulled often, some hardly ever."""
    draws = uniforms([0], f"{purpose}/laws", 0, n, n_actions)
    weights = torch.special.ndtri(draws.clamp(1e-6, 1 - 1e-6)).square()  # chi-square of one: Gamma(1/2)
    return weights / weights.sum(-1, keepdim=True)


def pulled(tasks: DecisionTasks, law: Float[Tensor, "1 n actions"], n_steps: int, purpose: str) -> Interaction:
    """Pulls by a law of each task, whatever comes of them."""
    return roll_out(tasks, lambda seen: law, n_steps, purpose=purpose)
