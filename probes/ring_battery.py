"""The control tests of the battery, told on rings: contexts that a policy trained there can take for its own.

The tests T1 to T10 of `probes.battery` end episodes and set out elsewhere; on a ring walks go on, so that the same
questions are put by walks of which every step begins where the last has ended. State i has the neighbours i + 1 by R
and i - 1 by L, to arrive in state 0 is worth 1. In the end somebody stands at state d: the goal is near, on the left.
Every context comes with its mirror image, and readings are means over both: a liking for L or R drops out.

                            returns (MC, PG)    one step (Q, SARSA, AC)      model           successors
    path after reward       at d = 1 alone      d = 1; 2 by a maximum        L               at d = 1 alone
    reward after path       L                   at d = 1 alone               L               as far as rows are learnt
    order                   what came after     what was known               0               what was known
    repeats                 grows               grows                        0               grows
    unpaid once (T1)        0                   L                            L               L
    turning back (T3)       falls (MC)          falls; grows by a maximum    0               falls
    counts (T7)             either way          the common way               0; UCB rarer    the common way
    rewards move (T4)       moves               stays                        turns           moves
    places change (T5)      moves               stays                        turns           stays

UCB-VI, a model with a bonus for what was seldom done, answers otherwise where the bonus decides: repeats fall, and T4
stays if the old goal's loss was seen first.

T2, T6 and T10 are the first two, T8 and T9 are repeats and order. Of T1 only the half in which B comes first is asked:
on walks that do not end returns collect what comes later, and the other half would be reward after path again. For the
same reason returns are moved, not turned, by what comes later in T4 and T5, where cached values stay as they are. What
was said before it came is the effect less the mean of what is said after either order: who had not learnt the choice
cannot be told. Somebody comes back from where the second half was seen: who only turns one way may follow that.

No ring of training ever changed, or failed to pay: T1, T4 and T5 ask policies beyond what they have seen, and what they
say there is how they extrapolate. In T5 either part of a walk is one on a ring, but not on the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from probes.battery import Test
from probes.readings import Answers, Reading, odds
from tasks.errors import ConfigError
from tasks.interaction import Interaction, in_time

DISTANCES = (1, 2, 3)
L, R = range(2)
MIRROR = ", mirrored"
ORDERS = (
    "loss first",
    "gain first",
)  # what is seen of a change first: that the old is gone, or that there is a new one

Told = dict[str, tuple[str, dict[str, Interaction]]]
"""By name of the test its question and its contexts."""


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


def neighbours_exchanged(history: Interaction, middle: int) -> Interaction:
    """The walk on a ring on which the two neighbours of `middle` stand in each other's place.

    What leads from either to `middle` and from there to them stays as it was; what lies beyond them is exchanged.
    """
    n = history.n_observations

    def near(places: Tensor) -> Tensor:
        return (places - middle + 1) % n < 3

    def states(places: Tensor) -> Tensor:
        return torch.where(near(places), (2 * middle - places) % n, places)

    return replace(
        history,
        observation=states(history.observation),
        action=torch.where(near(history.observation), 1 - history.action, history.action),
        next_observation=states(history.next_observation),
    )


def ring_tests(n_states: int) -> dict[str, Test]:
    """Every test by name. Raises ConfigError for rings on which the far side is not farther than DISTANCES."""
    if n_states < 2 * max(DISTANCES) + 1:
        least = 2 * max(DISTANCES) + 1
        raise ConfigError(f"n_states is {n_states}; allowed: at least {least}, as goals are asked for from either side")
    told = _found(n_states) | _learnt(n_states) | _revalued(n_states)
    return {
        name: Test(question, given | {key + MIRROR: mirrored(walk) for key, walk in given.items()})
        for name, (question, given) in told.items()
    }


def _found(n: int) -> Told:
    """Is the goal found from afar? Tests by the distance."""
    left, right = "L" * (n - 2), "R" * (n - 2)
    told: Told = {}
    for d in DISTANCES:
        away = "R" * (d - 1)
        told[f"path after reward, {d}"] = (
            f"Is the goal found from {d} away, if where steps lead was seen only after the reward?",
            {"given": ring_walk(1, f"L+ L {left} {away}", n)},
        )
        told[f"reward after path, {d}"] = (
            f"Is the goal found from {d} away, if the reward was seen only after where steps lead?",
            {"given": ring_walk(n - 1, f"{left} {right} {left} L+ R {away}", n)},
        )
    return told


def _learnt(n: int) -> Told:
    """What do single steps count for?"""
    passes = "L L+ R R" * 2
    return {
        "order": (
            "Does a step count for more where it led to what was known to be good?",
            {
                "before": ring_walk(1, "R L" + "L+ R" * 5 + "R", n),
                "after": ring_walk(1, "L+ R" * 4 + "R L" + "L+ R" + "R", n),
            },
        ),
        "repeats": (
            "Do repeats of one path still count?",
            {"before": ring_walk(2, "L L+ R R", n), "after": ring_walk(2, "L L+ R R" * 4, n)},
        ),
        "unpaid once": (
            "Is a step good that led to where 6 of 8 pay, though nothing was paid that time? (all did in training)",
            {"given": ring_walk(1, "L+ R" * 3 + "L R" + "L+ R" * 3 + "R L L R R", n)},
        ),
        "turning back": (
            "Does a step lose by turning back after it, half-way to the goal?",
            {"before": ring_walk(2, passes, n), "after": ring_walk(2, passes + "L R" * 4, n)},
        ),
        "counts": (
            "Two ways out of the goal and back, one taken 8 times and the other twice: which?",
            {"given": ring_walk(0, ("L R+" * 2 + "R L+" + "L R+" * 2) * 2, n)},
        ),
    }


def _revalued(n: int) -> Told:
    """Does a choice turn by what is seen later, further on, while nothing is seen of the choice itself?"""
    return {
        "rewards move": (
            "Does a choice turn where the goal, two steps away, has moved to the other side? (none did in training)",
            _rewards_move(n),
        ),
        "places change": (
            "Does a choice turn where the states that it leads to have changed places? (none did in training)",
            _places_change(n),
        ),
    }


def _rewards_move(n: int) -> dict[str, Interaction]:
    """The choice is in state 2: state 0 pays no more, state 4 does. Between them somebody goes the far way round."""
    left, right = "RR LLLL+ RRRR LLLL+", "LL+ RRRR LLLL+ RRRR"
    gone, new = "RL" * 3, "LR+" * 3
    return {
        "before, loss first": ring_walk(2, left + "RR", n),
        "after, loss first": ring_walk(2, left + gone + "L" * (n - 4) + new + "LL", n),
        "before, gain first": ring_walk(2, right + "LL", n),
        "after, gain first": ring_walk(2, right + new + "R" * (n - 4) + gone + "RR", n),
    }


def _places_change(n: int) -> dict[str, Interaction]:
    """The choice is in state 3: beyond state 4 there is now state 1, next to the goal, and beyond state 2 state 5."""
    known = "L+R L+R R LL+ RRR LLL+ RRRR"  # ends in state 4; no reward changes for any state and action
    left = ring_walk(5, "LRLR" + "R" * (n - 6) + "R+R RLRLR R", n)
    right = ring_walk(2, "LRL L+" + "L" * (n - 5) + "LRLRL L", n)
    return {
        "before, loss first": ring_walk(1, known + "R LL", n),
        "after, loss first": in_time(ring_walk(1, known + "R", n), neighbours_exchanged(left, 3)),
        "before, gain first": ring_walk(1, known + "L", n),
        "after, gain first": in_time(ring_walk(1, known, n), neighbours_exchanged(right, 3)),
    }


def _towards(said: Answers, context: str) -> Tensor:
    """Log odds of the way to the goal, the mean over a context and its mirror image."""
    return (odds(said[context], L, R) + odds(said[context + MIRROR], R, L)) / 2


def _gain(said: Answers) -> Tensor:
    return _towards(said, "after") - _towards(said, "before")


def _given(said: Answers) -> Tensor:
    return _towards(said, "given")


def _moved(said: Answers) -> Tensor:
    moved = [_towards(said, f"before, {order}") - _towards(said, f"after, {order}") for order in ORDERS]
    return torch.stack(moved).mean(0)


def _turned(order: str) -> Callable[[Answers], Tensor]:
    return lambda said: -_towards(said, f"after, {order}")


RING_READINGS = {
    **{
        f"{order}, {d}": Reading(f"{order}, {d}", "towards the goal", _given)
        for order in ("path after reward", "reward after path")
        for d in DISTANCES
    },
    "order": Reading("order", "a step into what was known to be good counts more", _gain),
    "repeats": Reading("repeats", "repeats still count", _gain),
    "unpaid once": Reading("unpaid once", "towards where it mostly pays", _given),
    "turning back": Reading("turning back", "a step gains by turning back after it", _gain),
    "counts": Reading("counts", "the rarer of two ways", lambda said: -_given(said)),
    **{
        f"{test}, {order}": Reading(test, meaning, _turned(order))
        for test, meaning in (
            ("rewards move", "to the new goal, not the old one"),
            ("places change", "the new way, not the old one"),
        )
        for order in ORDERS
    },
    "rewards move, effect": Reading("rewards move", "odds of the new goal gain, both orders", _moved),
    "places change, effect": Reading("places change", "odds of the new way gain, both orders", _moved),
}
