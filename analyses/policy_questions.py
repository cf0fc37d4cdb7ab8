"""What a policy is asked: contexts of the task that is named, in which rivals differ, and who its rivals are there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from algorithms.acting import interact
from algorithms.acting_bank import BANDIT, CONTROL, NAVIGATION
from algorithms.planning import CertaintyEquivalence
from models.config import ConfigError
from models.foreign_policy import PolicyShape
from models.policy_config import PolicyConfig
from probes import contexts, control_contexts
from tasks.arrival import OnArrival
from tasks.bandits import BanditFamily
from tasks.decision import DecisionFamily
from tasks.errors import require
from tasks.gridworlds import HORIZONS, MOVES, GridFamily, moves
from tasks.interaction import Interaction, interleaved
from tasks.mdps import SHAPES, MDPFamily

BERNOULLI = "bernoulli-bandit"
ARRIVAL = "arrival-ring"
ROOMS = tuple(HORIZONS)
ON_ARRIVAL = (ARRIVAL, "dark-room")  # their reward comes with the move that reaches the goal, whenever it does
POLICY_TASKS = (BERNOULLI, *SHAPES, ARRIVAL, *ROOMS)
# A policy that acts at random takes nothing from its context: that is told by itself.
# Not asked on coins, either: planning for two arms alone, and Thompson's law for Gaussian rewards.
BANDIT_RIVALS = tuple(name for name in BANDIT if name not in ("random", "bayes-optimal", "gaussian-thompson"))
CONTROL_RIVALS = tuple(name for name in CONTROL if name != "random")
PLANNERS = ("certainty-equivalence", "ucb-vi", "posterior-sampling")
# In a room moves are always the same: who plans need not learn where they lead. A map of successors, of all cells and
# moves by all cells and moves, is not asked for want of time.
NOT_IN_ROOMS = (*PLANNERS, "successor-representation")
DRAWN_IN_ROOMS = 4  # contexts for one that is asked: where no goal was found, everybody says the same
ROOM_RIVALS = (*(name for name in CONTROL_RIVALS if name not in NOT_IN_ROOMS), *NAVIGATION)
EXPLOITING = CertaintyEquivalence(n_sweeps=10, lapse=0.1)  # whose walks go where rewards were


@dataclass(frozen=True)
class PolicyQuestion:
    """Contexts (1, tasks), those of each kind in turn, the rivals, and by rival what it must be told."""

    history: Interaction
    kinds: tuple[str, ...]
    rivals: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def policy_question(
    task: str,
    shape: PolicyConfig | PolicyShape,
    n_steps: int,
    n: int,
    rivals: Sequence[str] | None = None,
    horizon: int | None = None,
) -> PolicyQuestion:
    """n contexts of every kind, in float64. `rivals` None are those of the task; horizon: steps of an episode in a
    room, None for the published ones.

    Raises ConfigError for an unknown task, one of other observations or actions than the policy's, or a horizon where
    there is none to choose.
    """
    require("task", task, POLICY_TASKS)
    if horizon is not None and task not in ROOMS:
        raise ConfigError(f"horizon is {horizon}; allowed: None, only rooms ({', '.join(ROOMS)}) have one to choose")
    if task == BERNOULLI:
        question = _bandit(shape, n_steps, n)
    else:
        question = _control(task, _family(task, shape, horizon), shape, n_steps, n)
    history = question.history.each(lambda x: x.double() if x.is_floating_point() else x)
    asked = question.rivals if rivals is None else tuple(rivals)
    return PolicyQuestion(history, question.kinds, asked, question.settings)


def fitting_tasks(shape: PolicyConfig | PolicyShape) -> tuple[str, ...]:
    """All tasks with as many observations and actions as the policy's. Raises ConfigError where there is none."""
    fitting = tuple(task for task in POLICY_TASKS if _fits(task, shape))
    if not fitting:
        raise ConfigError(
            f"no task has {shape.n_observations} observations and {shape.n_actions} actions; name one of "
            f"{', '.join(POLICY_TASKS)}"
        )
    return fitting


def _fits(task: str, shape: PolicyConfig | PolicyShape) -> bool:
    try:
        _family(task, shape)
    except ConfigError:
        return False
    return True


def _family(task: str, shape: PolicyConfig | PolicyShape, horizon: int | None = None) -> DecisionFamily:
    if task == BERNOULLI:
        if shape.n_observations != 1:
            raise ConfigError(f"this policy tells {shape.n_observations} observations apart; {task} has one")
        return BanditFamily(n_arms=shape.n_actions)
    sizes = f"{shape.n_observations} observations and {shape.n_actions} actions"
    if task in ROOMS:
        size = math.isqrt(shape.n_observations)
        if size < 2 or size**2 != shape.n_observations or shape.n_actions != len(MOVES):
            raise ConfigError(f"this policy knows {sizes}; a room has a square number of cells, and {len(MOVES)} moves")
        return GridFamily(task, size, horizon=horizon)
    try:
        if task == ARRIVAL:
            return OnArrival(MDPFamily("ring", shape.n_observations, shape.n_actions, slip=(0.0, 0.0)))
        return MDPFamily(task, shape.n_observations, shape.n_actions)
    except ConfigError as error:
        raise ConfigError(f"this policy knows {sizes}, which no {task} has: {error}") from error


def _bandit(shape: PolicyConfig | PolicyShape, n_steps: int, n: int) -> PolicyQuestion:
    history = contexts.designed(_family(BERNOULLI, shape), n_steps, n, "inspect")
    # Gittins plans for what the policy was trained to act in.
    return PolicyQuestion(history, contexts.KINDS, BANDIT_RIVALS, {"gittins": {"horizon": shape.n_ctx}})


def most_rewarded(history: Interaction, n: int) -> Interaction:
    """The n contexts of (1, tasks) with the most rewards, in the order in which they come."""
    best = history.reward[0].sum(-1).argsort(descending=True, stable=True)[:n].sort().values
    return history.each(lambda x: x[:, best])


def _control(
    task: str, family: DecisionFamily, shape: PolicyConfig | PolicyShape, n_steps: int, n: int
) -> PolicyQuestion:
    kinds = tuple(kind for kind in control_contexts.KINDS if kind != "moved" or task in ON_ARRIVAL)
    drawn = DRAWN_IN_ROOMS * n if task in ROOMS else n
    parts = [control_contexts.walk_of_kind(kind, family, n_steps, drawn, "inspect") for kind in kinds]
    own = interact(EXPLOITING, family.draw([0], "inspect", 1, drawn), n_steps, purpose="inspect/exploiting")
    history = interleaved([most_rewarded(part, n) for part in (*parts, own)])
    if task in ROOMS:
        told = {"goal-inference": {"moves": moves(math.isqrt(shape.n_observations))}}
        return PolicyQuestion(history, (*kinds, "exploiting"), ROOM_RIVALS, told)
    # As many sweeps as there are states find whatever can be reached without passing a state twice.
    swept = {name: {"n_sweeps": shape.n_observations} for name in PLANNERS}
    return PolicyQuestion(history, (*kinds, "exploiting"), CONTROL_RIVALS, swept)
