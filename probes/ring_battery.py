"""The control tests of the battery, told on rings: contexts that a policy trained there can take for its own.

The tests T1 to T10 of `probes.battery` end episodes and set out elsewhere; on a ring walks go on, so that the same
questions are put by walks of which every step begins where the last has ended. State i has the neighbours i + 1 by R
and i - 1 by L, to arrive in state 0 is worth 1. In the end somebody stands at state d: the goal is near, on the left.
Every context comes with its mirror image, and readings are means over both: a liking for L or R drops out.

                        returns (MC, PG)    one step (Q, SARSA, AC)   model        successors
    path after reward   at d = 1 alone      d = 1; 2 by a maximum     L            at d = 1 alone
    reward after path   L                   at d = 1 alone            L            as far as rows are learnt
    order               what came after     what was known            0            what was known
    repeats             grows               grows                     0            grows
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from probes.battery import Test
from probes.readings import Answers, Reading, odds
from tasks.errors import ConfigError
from tasks.interaction import Interaction

DISTANCES = (1, 2, 3)
L, R = range(2)
MIRROR = ", mirrored"


def ring_walk(first: int, moves: str, n_states: int) -> Interaction:
    """A walk "LR+R": from state `first` by L, then by R for a reward of 1, then by R; batch axes (1, 1)."""
    steps = moves.replace(" ", "").replace("L", " L").replace("R", " R").split()
    action = torch.tensor([step[0] == "R" for step in steps]).long()
    places = (first + torch.cat([torch.zeros(1).long(), (2 * action - 1).cumsum(0)])) % n_states
    reward = torch.tensor([float(step.endswith("+")) for step in steps])
    parts = (places[:-1], action, reward, places[1:], torch.zeros(len(steps), dtype=torch.bool))
    return Interaction(*(part[None, None] for part in parts), n_observations=n_states, n_actions=2)


def mirrored(history: Interaction) -> Interaction:
    """The same walk the other way round: state i is state -i, and L is R."""
    n = history.n_observations
    return replace(
        history,
        observation=-history.observation % n,
        action=1 - history.action,
        next_observation=-history.next_observation % n,
    )


def ring_tests(n_states: int) -> dict[str, Test]:
    """Every test by name. Raises ConfigError for rings on which the far side is not farther than DISTANCES."""
    if n_states < 2 * max(DISTANCES) + 1:
        least = 2 * max(DISTANCES) + 1
        raise ConfigError(f"n_states is {n_states}; allowed: at least {least}, as goals are asked for from either side")
    left, right = "L" * (n_states - 2), "R" * (n_states - 2)
    walks: dict[str, tuple[str, dict[str, tuple[int, str]]]] = {}
    for d in DISTANCES:
        away = "R" * (d - 1)
        walks[f"path after reward, {d}"] = (
            f"Is the goal found from {d} away, if where steps lead was seen only after the reward?",
            {"given": (1, f"L+ L {left} {away}")},
        )
        walks[f"reward after path, {d}"] = (
            f"Is the goal found from {d} away, if the reward was seen only after where steps lead?",
            {"given": (n_states - 1, f"{left} {right} {left} L+ R {away}")},
        )
    walks["order"] = (
        "Does a step count for more where it led to what was known to be good?",
        {"before": (1, "R L" + "L+ R" * 5 + "R"), "after": (1, "L+ R" * 4 + "R L" + "L+ R" + "R")},
    )
    walks["repeats"] = (
        "Do repeats of one path still count?",
        {"before": (2, "L L+ R R"), "after": (2, "L L+ R R" * 4)},
    )
    tests = {}
    for name, (question, told) in walks.items():
        given = {key: ring_walk(first, moves, n_states) for key, (first, moves) in told.items()}
        tests[name] = Test(question, given | {key + MIRROR: mirrored(walk) for key, walk in given.items()})
    return tests


def _towards(said: Answers, context: str) -> Tensor:
    """Log odds of the way to the goal, the mean over a context and its mirror image."""
    return (odds(said[context], L, R) + odds(said[context + MIRROR], R, L)) / 2


def _gain(said: Answers) -> Tensor:
    return _towards(said, "after") - _towards(said, "before")


def _given(said: Answers) -> Tensor:
    return _towards(said, "given")


RING_READINGS = {
    **{
        f"{order}, {d}": Reading(f"{order}, {d}", "towards the goal", _given)
        for order in ("path after reward", "reward after path")
        for d in DISTANCES
    },
    "order": Reading("order", "a step into what was known to be good counts more", _gain),
    "repeats": Reading("repeats", "repeats still count", _gain),
}
