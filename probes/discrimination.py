"""Which prompts tell rivals apart, computed from the rivals alone: before the subject is asked.

A subject that is near to several learners on its own prompts may be near to one alone on others. On a family of
prompts the gap from a to b is what b leaves unexplained of a,

    gap(a, b) = median over held-out tasks of  E (f_a - f_b)^2 / E f_a^2,

where b has the constants that fit a best on the subject's *own* prompts, and keeps them elsewhere as a network keeps
its weights. That is what tells an iterate from a fixed point: at 12 steps a TD(0) fitted anew imitates LSTD all the
better, but the TD(0) that imitated LSTD at 3 steps has moved on by then.

A learner that contains a has no gap from a on any prompts, nor has one that is the same function at this depth: such
pairs do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from algorithms.bank import build, one_function, richer
from algorithms.fit import DIVERGED, converges, disagreement, fit_bank, one_thread
from algorithms.learner import Learner, Scaled, values_of
from models.config import ConfigError
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt, PromptSource, TokenLayout
from tasks.markov_reward import TaskFamily
from tasks.regression import RegressionFamily

FITTING_TASKS = 32
HELD_OUT_TASKS = 64
# A family on which a rival diverges on more tasks than this asks about divergence rather than about the algorithm.
MOST_DIVERGED = 0.25


@dataclass(frozen=True)
class PromptFamily:
    """A way to ask: on which tasks, with how much context, at what depth.

    `loops` is the depth at test time as a multiple of the subject's. `discount` is what the tokens' next features
    carry, whatever the subject was trained on; tokens of other kinds have none, and leave it at 1.
    """

    name: str
    source: PromptSource
    context_length: int
    discount: float
    loops: int = 1


Gaps = dict[str, dict[str, float]]
Prompts = Callable[[PromptFamily, str, int], Prompt]
"""A family, a purpose and n -> n tasks, float64, batch axes (1, n); another purpose gives other tasks."""


@dataclass(frozen=True)
class Separation:
    """How far apart rivals are on a family of prompts.

    gap: gap[a][b] as above, NaN where a predicts zero. closest: the pair (a, b) with the smallest gap of those that
    count, None where none does; smallest: that gap, or zero. diverged: by rival, the share of held-out tasks on which
    it diverges.
    """

    family: PromptFamily
    gap: Gaps
    closest: tuple[str, str] | None
    smallest: float
    diverged: dict[str, float]

    @property
    def note(self) -> str:
        """Why not to ask this way; empty where nothing speaks against it."""
        often = [f"{name} diverges on {share:.0%}" for name, share in self.diverged.items() if share > MOST_DIVERGED]
        return f"{', '.join(often)} of the tasks" if often else ""


def candidates(
    source: PromptSource, layout: TokenLayout, *, looped: bool, context_length: int
) -> tuple[PromptFamily, ...]:
    """The subject's own prompts, which the arguments describe, then families that differ from them in one thing.

    Sequences keep their length: their networks add up what they see, learners divide it by the length of the prompt, so
    constants hold at one length.
    """
    own, d = PromptFamily("own prompts", source, context_length, layout.discount), layout.d_features
    others = set() if layout.target == "features" else {max(1, d // 2), d, 2 * d, 4 * context_length}
    lengths = others - {context_length}
    discounts = {0.5, 0.99, 2.0} - {layout.discount} if "next_features" in layout else ()
    return (
        own,
        *(replace(own, name=f"{k} times the loops", loops=k) for k in (2, 4) if looped),
        *(replace(own, name=f"context of {n}", context_length=n) for n in sorted(lengths)),
        *(replace(own, name=name, source=changed) for name, changed in _variants(source)),
        *(replace(own, name=f"tokens discounted by {g}", discount=g) for g in sorted(discounts)),
    )


def _variants(source: PromptSource) -> Iterator[tuple[str, PromptSource]]:
    """The tasks with one change, by name; CartPole has no chain to make longer and no rewards to thin out."""
    if isinstance(source, TaskFamily):
        for n in (5, 20, 40):
            if n != source.n_states:
                yield f"{n} states", replace(source, n_states=n)
        for reward in ("sparse", "terminal"):
            yield f"{reward} reward", replace(source, reward=reward, representable=False)
        for rank in sorted({1, source.d_features // 2} - {0, source.d_features}):
            yield f"features of rank {rank}", replace(source, feature_rank=rank)
    if isinstance(source, RegressionFamily):
        for covariates in ("sphere", "student-t"):
            if covariates != source.covariates:
                yield f"{covariates} covariates", replace(source, covariates=covariates)
        yield "a prior of mean 1", replace(source, prior_mean=1.0)
        yield "label noise of 0.5", replace(source, noise=0.5)
    if isinstance(source, AutoregressiveFamily):
        for first in {"ones", "random"} - {source.first}:
            yield f"{first} first states", replace(source, first=first)


def prompts_from(layout: TokenLayout) -> Prompts:
    """Prompts of any family for a subject that reads `layout`, every state or query of a task asked for.

    The layout keeps the subject's discount where the tokens carry another one. Subject and learners alike then read
    next features that are longer or shorter, and a learner's gamma means what it meant on the subject's own prompts.
    """

    def prompts(family: PromptFamily, purpose: str, n: int) -> Prompt:
        as_written = replace(layout, discount=family.discount)
        prompt = family.source.fresh_prompt([0], purpose, 0, n, family.context_length, as_written)
        return replace(prompt.to(torch.float64), layout=layout)

    return prompts


@one_thread()
@torch.no_grad()
def separations(
    learners: Mapping[str, Learner],
    families: Sequence[PromptFamily],
    prompts_of: Prompts,
    *,
    n_steps: int,
    shared: bool,
) -> list[Separation]:
    """How well each family separates the learners: the widest smallest gap first, those with a note last.

    The first family is the subject's own prompts, where rivals are fitted to one another. The learners are the bank's,
    by name, with constants [seeds, 1, ...] or plain numbers, n_steps deep; where a family has more loops they take as
    many more steps. Raises ConfigError for loops where steps do not share their constants.
    """
    for family in families:
        if family.loops > 1 and not shared:
            raise ConfigError(
                f"{family.name!r} asks for {family.loops} times the loops, but each step has constants of its own; "
                "allowed: families with loops = 1"
            )
    # what one family can separate counts on all of them
    pairs = distinct_pairs(learners, n_steps * max((family.loops for family in families), default=1), shared)
    fitted = _fit_to_each(learners, prompts_of(families[0], "discrimination/fit", FITTING_TASKS), n_steps, shared)
    found = []
    for family in families:
        deep, rivals = (at_depth(bank, n_steps * family.loops) for bank in (learners, fitted))
        held_out = prompts_of(family, "discrimination/held-out", HELD_OUT_TASKS)
        gap = _gaps(deep, rivals, held_out)
        smallest, closest = min(((gap[a][b], (a, b)) for a, b in pairs if gap[a][b] >= 0), default=(0.0, None))
        found.append(Separation(family, gap, closest, smallest, _diverged(deep, held_out)))
    return sorted(found, key=lambda separation: (bool(separation.note), -separation.smallest))


def distinct_pairs(names: Collection[str], n_steps: int, shared: bool) -> list[tuple[str, str]]:
    """The ordered pairs (a, b) that count: b does not contain a, and they are not one function at this depth."""
    above = richer(n_steps, shared)
    return [(a, b) for a in names for b in names if a != b and b not in above[a] and b not in one_function(a, n_steps)]


@one_thread()
@torch.no_grad()
def rival_gaps(
    learners: Mapping[str, Learner], fitting: Prompt, held_out: Prompt, *, n_steps: int, shared: bool
) -> Gaps:
    """gap[a][b] of all ordered pairs of the learners, the bank's by name, n_steps deep; medians over seeds and tasks.

    b is fitted to a on one prompt and compared on the other. Tasks on which a diverges are left out; one on which the
    fitted b diverges counts as DIVERGED times a's distance from zero.
    """
    return _gaps(learners, _fit_to_each(learners, fitting, n_steps, shared), held_out)


def _diverged(learners: Mapping[str, Learner], prompt: Prompt) -> dict[str, float]:
    """By name, the share of tasks on which it diverges."""
    return {name: 1 - float(converges(g.predict(prompt), prompt).double().mean()) for name, g in learners.items()}


def at_depth(learners: Mapping[str, Learner], n_steps: int) -> dict[str, Learner]:
    """The same constants at another depth; learners that do not iterate stay as they are."""
    return {name: build(name, n_steps, values_of(learner)) for name, learner in learners.items()}


def _fit_to_each(learners: Mapping[str, Learner], prompt: Prompt, n_steps: int, shared: bool) -> dict[str, Learner]:
    """Every rival fitted to all learners at once: constants [learners * seeds, 1, ...]."""
    target = torch.cat([learner.predict(prompt) for learner in learners.values()])
    scaled = any(isinstance(learner, Scaled) for learner in learners.values())
    fits = fit_bank(target, prompt, n_steps=n_steps, shared=shared, rivals=learners.keys(), scaled=scaled)
    return {name: fit.learner for name, fit in fits.items()}


def _gaps(learners: Mapping[str, Learner], fitted: Mapping[str, Learner], held_out: Prompt) -> Gaps:
    predictions = [learner.predict(held_out) for learner in learners.values()]
    f = torch.cat(predictions)
    gap: Gaps = {a: {} for a in learners}
    for b in learners:
        g = fitted[b].predict(held_out).expand_as(f)
        unexplained = torch.where(converges(g, held_out), disagreement(f, g, held_out), DIVERGED**2)
        unexplained = torch.where(converges(f, held_out), unexplained, torch.nan)
        for a, values in zip(gap, unexplained.split([len(p) for p in predictions]), strict=True):
            gap[a][b] = float(values.nanquantile(0.5))
    return gap
