"""What is said to each test of the battery, as one signed number: a preference, or how far it has moved.

Every reading is made of log odds ln pi(x) - ln pi(y), and zero is no preference, or no effect. A sign counts from SURE
on and "none" up to TIE; what lies between cannot be told. Both were fixed before any policy was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.bandit import log_law
from probes.battery import Test
from tasks.interaction import Interaction

TIE = 0.1  # odds of .90 to 1.11
SURE = 0.3  # odds of 1.35, or .74
PADDING = 2  # pulls of every arm that a test does not know, all without reward

Answers = Mapping[str, Float[Tensor, "*batch actions"]]
A, B, C = range(3)  # arms; of walks, L and R are the first two


@dataclass(frozen=True)
class Reading:
    """A number read from the answers to one test; `positive` says what a positive one means."""

    test: str
    positive: str
    of: Callable[[Answers], Float[Tensor, "*batch"]]


def odds(law: Float[Tensor, "*batch actions"], first: int, second: int) -> Float[Tensor, "*batch"]:
    """ln pi(first) - ln pi(second)"""
    logs = log_law(law)
    return logs[..., first] - logs[..., second]


def _moved(before: str, after: str, first: int, second: int) -> Callable[[Answers], Tensor]:
    return lambda said: odds(said[after], first, second) - odds(said[before], first, second)


def _kept(units: str) -> Callable[[Answers], Tensor]:
    """The smallest log odds, in other units, between neighbours in the ranking of the first three arms."""

    def smallest(said: Answers) -> Tensor:
        order = said["given"][..., :3].argsort(-1, descending=True)
        return -log_law(said[units]).gather(-1, order).diff(dim=-1).amax(-1)

    return smallest


BANDIT_READINGS = {
    "A": Reading("A", "the later of two orders weighs more", _moved("reversed", "given", A, B)),
    "B": Reading("B", "recent rewards weigh more", _moved("falling", "rising", A, B)),
    "C": Reading("C", "the rarer of two good arms", lambda said: odds(said["both"], B, A)),
    "D": Reading("D", "the rarer of two bad arms", lambda said: odds(said["both"], B, A)),
    "E": Reading("E", "further wins still count", _moved("1", "16", A, B)),
    "F": Reading("F", "a rich third arm favours the better of two", _moved("poor", "rich", A, C)),
    "G": Reading("G", "pulls of a third arm favour the rarer of two", _moved("few", "many", A, B)),
    "H": Reading("H", "the rare arm gains as time passes", _moved("early", "late", B, A)),
    "I scale": Reading("I", "the ranking survives rewards times 3", _kept("scaled")),
    "I shift": Reading("I", "the ranking survives rewards less 1", _kept("shifted")),
    "J coins": Reading("J coins", "the better of two arms gains if means are paid", _moved("coins", "means", A, B)),
}


def padded(test: Test, n_arms: int) -> Test:
    """The test for somebody who knows n_arms arms: those that it does not use are pulled first, and never pay."""
    return replace(test, contexts={name: _padded(context, n_arms) for name, context in test.contexts.items()})


def _padded(context: Interaction, n_arms: int) -> Interaction:
    own = context.n_actions
    steps = PADDING * (n_arms - own)
    longer = context.each(lambda x: torch.cat([x.new_zeros(*x.shape[:-1], steps), x], -1))
    longer.action[..., :steps] = own + torch.arange(steps) % max(n_arms - own, 1)
    return replace(longer, n_actions=n_arms)


def longest(test: Test) -> int:
    """Steps of its longest context."""
    return max(context.n_steps for context in test.contexts.values())


def verdict(value: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """-1, 0 or 1 where it can be told, else NaN."""
    none = torch.where(value.abs() <= TIE, 0.0, torch.nan)
    return torch.where(value.abs() >= SURE, value.sign(), none)


def agreement(first: Float[Tensor, "*batch tests"], second: Float[Tensor, "*#batch tests"]) -> tuple[Tensor, Tensor]:
    """The share of tests with the same verdict, and how many were compared: those that can be told of both."""
    one, other = verdict(first), verdict(second)
    told = ~(one.isnan() | other.isnan())
    same = (one == other) & told
    return same.sum(-1) / told.sum(-1), told.sum(-1)
