"""Constructed contexts on which learners that agree on ordinary ones give different answers: the behavioural battery.

A test is a question, a few contexts that differ in one thing, and the state in which somebody is asked what they would
do after each of them. The answers of a policy and of its rivals come from the same call. Bandit tests A to J concern
the statistics of arms, tests T1 to T10 what is learnt of a process with two actions, L and R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner, State, remember
from tasks.interaction import Interaction, Step

ACTIONS = "LR"


@dataclass(frozen=True)
class Test:
    """A question put after each of several contexts; `asked` is the observation in which it is put."""

    question: str
    contexts: dict[str, Interaction]
    asked: int = 0
    __test__ = False  # pytest takes every class of this name for its own


def pulls(runs: str, n_arms: int) -> Interaction:
    """A bandit context "a:0011 b:1 a:0": runs of rewards of arms a, b, c, ..., batch axes (1, 1)."""
    steps = []
    for run in runs.split():
        arm, rewards = run.split(":")
        steps += [(0, ord(arm) - ord("a"), float(reward), 0, False) for reward in rewards]
    return _interaction(steps, 1, n_arms)


def walks(*episodes: str) -> Interaction:
    """Episodes "0L1 1R3+": from state 0 by L to 1, then by R to 3 with a reward of 1; batch axes (1, 1)."""
    steps = []
    for episode in episodes:
        moves = episode.split()
        for i, move in enumerate(moves):
            state, action, after, reward = int(move[0]), ACTIONS.index(move[1]), int(move[2]), float(move[3:] == "+")
            steps.append((state, action, reward, after, i == len(moves) - 1))
    return _interaction(steps, 1 + max(max(step[0], step[3]) for step in steps), len(ACTIONS))


def _interaction(
    steps: Sequence[tuple[int, int, float, int, bool]], n_observations: int, n_actions: int
) -> Interaction:
    columns = (torch.tensor(column)[None, None] for column in zip(*steps, strict=True))
    named = dict(zip((field.name for field in fields(Step)), columns, strict=True))
    return Interaction(**named, n_observations=n_observations, n_actions=n_actions)


def reordered(context: Interaction, order: Sequence[int]) -> Interaction:
    """The same steps in another order."""
    return context.each(lambda x: x[..., list(order)])


def with_rewards(context: Interaction, scale: float, shift: float) -> Interaction:
    """Every reward r as scale r + shift."""
    return Interaction(**{**vars(context), "reward": scale * context.reward + shift})


def remembered(learner: ActingLearner, test: Test) -> dict[str, State]:
    """What a learner remembers after each context."""
    return {name: remember(learner, context) for name, context in test.contexts.items()}


def answers(learner: ActingLearner, test: Test) -> dict[str, Float[Tensor, "*batch actions"]]:
    """The law of the next action after each context, batch axes of the learner's constants."""
    asked = torch.full((1, 1), test.asked)
    return {name: learner.law(state, asked) for name, state in remembered(learner, test).items()}


def _mixed(common: str, rare: str) -> str:
    """Twenty pulls of arm a among five of arm b, four before each one."""
    return " ".join(f"a:{common[4 * i : 4 * i + 4]} b:{rare[i]}" for i in range(5))


_ORDER = pulls("a:1 b:0 a:0 b:1 b:1 a:1 a:0 b:0 a:1 b:0", 2)
_THREE = "a:1011 b:01101101"
_RANKED = pulls("a:110111 b:011 c:00101", 3)
_QUIET = pulls("a:1010 b:0100", 2)

BANDIT_TESTS = {
    "A": Test(
        "Does the order of the context matter?",
        {"given": _ORDER, "reversed": reordered(_ORDER, range(_ORDER.n_steps)[::-1])},
    ),
    "B": Test(
        "Do recent rewards of an arm weigh more than early ones?",
        {"rising": pulls("a:000111", 2), "falling": pulls("a:111000", 2)},
    ),
    "C": Test(
        "Two arms of mean .8, 20 pulls against 5: which?", {"both": pulls(_mixed("11110111101111011110", "11110"), 2)}
    ),
    "D": Test(
        "Two arms of mean .2, 20 pulls against 5: which?", {"both": pulls(_mixed("00001000010000100001", "00001"), 2)}
    ),
    "E": Test(
        "How does an arm's index grow with wins in a row?",
        {str(k): pulls(f"a:{'1' * k}", 2) for k in (1, 2, 4, 8, 16)},
    ),
    "F": Test(
        "Do the rewards of one arm move the odds of two others?",
        {name: pulls(f"a:1101 c:0101 b:{rewards}", 3) for name, rewards in (("poor", "0000"), ("rich", "1111"))},
    ),
    "G": Test(
        "Do further pulls of a third arm favour the rarer one of two others?",
        {"few": pulls(f"{_THREE} c:01", 3), "many": pulls(f"{_THREE} c:{'01' * 15}", 3)},
    ),
    "H": Test(
        "Does exploration shrink as time runs out? (pulls of a third, bad arm pass the time)",
        {"early": pulls(f"a:{'10' * 4} b:0 c:0000", 3), "late": pulls(f"a:{'10' * 4} b:0 c:{'0' * 80}", 3)},
    ),
    "I": Test(
        "Is the ranking of arms kept under other units of reward?",
        {"given": _RANKED, "scaled": with_rewards(_RANKED, 3.0, 0.0), "shifted": with_rewards(_RANKED, 1.0, -1.0)},
    ),
    "J coins": Test(  # of the noise of Gaussian rewards, which J is about, who knows only coins cannot be asked
        "Two coins, or at every pull the mean of either (.25, .5: no coin pays so): are the odds the same?",
        {
            "coins": _QUIET,
            "means": Interaction(**{**vars(_QUIET), "reward": torch.where(_QUIET.action == 0, 0.5, 0.25)}),
        },
    ),
}


def _corridor(length: int) -> Interaction:
    """Every move between neighbours, seen once in an episode of its own, and the R that is worth 1 last."""
    moves = [f"{i}L{max(i - 1, 0)}" for i in range(length)] + [f"{i}R{i + 1}" for i in range(length - 1)]
    return walks(*moves, f"{length - 1}R{length}+")


_AB = ("0L1 1L2", *["1L2+"] * 6, "1L2")
_MAX = ("0L1 1L2+", *["0L1 1R2"] * 3)
_TAUGHT = ("0L1 1L3+", "0R2 2L3") * 4
_TAUGHT_ROUTES = ("0L1 1L3 3L5+", "0R2 2L4 4L5") * 4
_SHUFFLED = walks("0L1 1L3+", "0R2 2L3", "0L2 2L3", "0R1 1R3")

CONTROL_TESTS = {
    "T1": Test(
        "What is A worth, seen once before a B without reward, where B is mostly worth 1?",
        {"A first": walks(*_AB), "A last": walks(*_AB[:0:-1], _AB[0])},
    ),
    "T2": Test(
        "Are two episodes joined where they meet?",
        {"end first": walks("1L2+", "0L1"), "start first": walks("0L1", "1L2+")},
    ),
    "T3": Test("Is a state worth its best action, or the usual one?", {"rare win": walks(*_MAX * 40)}),
    "T4": Test(
        "Do rewards met later, further on, turn a choice that was learnt?",
        {"before": walks(*_TAUGHT), "after": walks(*_TAUGHT, *("1L3", "2L3+") * 12)},
    ),
    "T5": Test(
        "Do transitions met later, further on, turn a choice that was learnt?",
        {"before": walks(*_TAUGHT_ROUTES), "after": walks(*_TAUGHT_ROUTES, *("1L4 4L5", "2L3 3L5+") * 12)},
    ),
    "T6": Test(
        "Is a path known that was walked without reward, once the reward is shown at its end?",
        {"shown": walks(*("0R1 1R2 2R3 3R4", "0L0", "1L0", "2L1", "3L2") * 10, "3R4+")},
    ),
    "T7": Test(
        "Does the number of observations matter where they say the same?",
        {"20 against 5": walks(*("0L1+", "0L1") * 8, *["0L1+"] * 4, *("0R1+", "0R1") * 2, "0R1+")},
    ),
    "T8": Test(
        "How do the odds grow as one outcome is repeated?", {str(k): walks(*["0L1+"] * k) for k in (1, 4, 16, 64)}
    ),
    "T9": Test(
        "Does the order of transitions matter?",
        {"given": _SHUFFLED, "shuffled": reordered(_SHUFFLED, (1, 6, 3, 0, 5, 2, 7, 4))},
    ),
    "T10": Test("From how far is a reward found?", {str(distance): _corridor(distance) for distance in range(1, 7)}),
}
