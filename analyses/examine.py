"""Which learner does a subject run? Fit every rival, compare on held-out tasks and, where several are left, ask again.

The constants of a rival are fitted on one set of tasks, and all that is reported comes from another. Where rivals
cannot be told apart on the subject's own prompts, the rivals themselves say on which prompts they differ most
(`probes.discrimination`), and there the subject is asked again, among those that are left. So which prompts to ask on
is decided from the rivals alone. There they keep the constants that fitted before, as the subject keeps its weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from algorithms.bank import RIVALS, build, richer
from algorithms.fit import Fit, fit_bank
from probes.behaviour import Comparison, Predictor, Subject, compare, predict
from probes.discrimination import PromptFamily, Prompts, Separation, separations
from probes.verdict import MOSTLY, THRESHOLDS, Relations, Thresholds, Verdict, decide
from tasks.layout import Prompt

FITTING_TASKS, HELD_OUT_TASKS = 128, 200
MOST_ROUNDS = 3  # families asked besides the subject's own prompts


@dataclass(frozen=True)
class Round:
    """Some members of an ensemble, asked on one family of prompts: the fitted rivals and the held-out comparison."""

    family: PromptFamily
    members: tuple[int, ...]
    fits: dict[str, Fit]
    comparison: Comparison

    def evidence(self, member: int) -> dict[str, Any]:
        """What `decide` takes, for one of the members."""
        i = self.members.index(member)
        comparison, fits = self.comparison, self.fits
        return {
            "disagreement": {name: values[i].numpy() for name, values in comparison.disagreement.items()},
            "distance": {
                a: {b: float(gap[i]) for b, gap in others.items()} for a, others in comparison.distance.items()
            },
            "diverged": float(comparison.diverged[i]),
            "bounded": [name for name, fit in fits.items() if any(bool(hit[i]) for hit in fit.at_bound.values())],
            "gammas": {
                name: float(fit.constants["gamma"][i]) for name, fit in fits.items() if "gamma" in fit.constants
            },
        }


@dataclass(frozen=True)
class Examination:
    """Every round, the subject's own prompts first, the searches that chose the others, and each member's verdict."""

    subject: Subject
    rounds: tuple[Round, ...]
    searches: tuple[tuple[Separation, ...], ...]
    verdicts: tuple[Verdict, ...]

    def rounds_of(self, member: int) -> list[Round]:
        return [asked for asked in self.rounds if member in asked.members]


def examine(
    subject: Subject,
    families: Sequence[PromptFamily],
    prompts: Prompts,
    *,
    fitting_tasks: int = FITTING_TASKS,
    held_out_tasks: int = HELD_OUT_TASKS,
    starts: Mapping[str, Mapping[str, Tensor]] | None = None,
    rivals: Collection[str] = RIVALS.keys(),
    scaled: bool = False,
    thresholds: Thresholds = THRESHOLDS,
) -> Examination:
    """Asks on the first of the families and, for members that stay ambiguous, on those where their rivals differ most.

    starts: constants to fit from besides the declared ones; scaled: rivals up to their unit; see fit_bank.
    """
    sizes = (fitting_tasks, held_out_tasks)
    first = ask(subject, families[0], prompts, sizes, starts, rivals, scaled)
    return resolve(subject, first, families, prompts, held_out_tasks, thresholds)


def resolve(
    subject: Subject,
    first: Round,
    families: Sequence[PromptFamily],
    prompts: Prompts,
    held_out_tasks: int,
    thresholds: Thresholds = THRESHOLDS,
) -> Examination:
    """What a first round says of every member and, where that is ambiguous, what further ones do.

    Members that come out with the same rivals share a search, made with the constants of the first of them. A member
    that none of its rivals fits where they differ stays ambiguous: other prompts on which one of them does fit would
    not make that undone.
    """
    verdicts = [decide_round(subject, first, member, thresholds) for member in first.members]
    rounds, searches, closed = [first], [], set[int]()
    for learners in sorted({verdict.learners for verdict in verdicts if verdict.outcome == "ambiguous"}):
        members = [i for i, verdict in enumerate(verdicts) if verdict.learners == learners]
        fitted = {name: _of_members(first.fits[name], name, members[:1], subject.n_steps).learner for name in learners}
        search = separations(fitted, families, prompts, n_steps=subject.n_steps, shared=subject.looped)
        searches.append(tuple(search))
        nearest = min(learners, key=lambda name: _left_over(first, name, members[0]))
        for family in _worth_asking(search, first.family, nearest, subject)[:MOST_ROUNDS]:
            open_members = tuple(i for i in members if verdicts[i].outcome == "ambiguous" and i not in closed)
            if not open_members:
                break
            asked = ask_again(subject, first, family, prompts, open_members, learners, held_out_tasks)
            rounds.append(asked)
            for i in open_members:
                said = decide_round(subject, asked, i, thresholds, verdicts[i].learners)
                verdicts[i] = narrow(verdicts[i], said, family)
                if said.outcome == "none" and asked.comparison.diverged[asked.members.index(i)] <= MOSTLY:
                    closed.add(i)
    return Examination(subject, tuple(rounds), tuple(searches), tuple(verdicts))


def ask(
    subject: Subject,
    family: PromptFamily,
    prompts: Prompts,
    sizes: tuple[int, int],
    starts: Mapping[str, Mapping[str, Tensor]] | None = None,
    rivals: Collection[str] = RIVALS.keys(),
    scaled: bool = False,
) -> Round:
    """Fits the rivals to all members on a family's prompts, and compares on others."""
    fitting, held_out = (prompts(family, f"inspect/{p}", n) for p, n in zip(("fit", "held-out"), sizes, strict=True))
    with torch.no_grad():
        target = predict(subject.predictor, fitting)
    depth = {"n_steps": subject.n_steps, "shared": subject.looped}
    fits = fit_bank(target, fitting, **depth, starts=starts, rivals=rivals, scaled=scaled)
    comparison = compare(subject.predictor, {name: fit.learner for name, fit in fits.items()}, held_out)
    return Round(family, tuple(range(subject.n_members)), fits, comparison)


def ask_again(
    subject: Subject,
    first: Round,
    family: PromptFamily,
    prompts: Prompts,
    members: tuple[int, ...],
    rivals: Sequence[str],
    n_tasks: int,
) -> Round:
    """Compares some members with the named rivals on another family, with the constants that fitted in the first round.

    Learners that iterate take as many more steps as the family has more loops.
    """
    fits = {name: _of_members(first.fits[name], name, members, subject.n_steps * family.loops) for name in rivals}
    asked = _Members(subject.deeper(family.loops), members)
    held_out = prompts(family, "inspect/held-out", n_tasks)
    return Round(family, members, fits, compare(asked, {name: fit.learner for name, fit in fits.items()}, held_out))


def narrow(before: Verdict, after: Verdict, family: PromptFamily) -> Verdict:
    """What two rounds say together: the later one where it names any of the rivals left, else the earlier one."""
    note = f"{before.note}; on {family.name}, where they differ, {after.note}"
    return replace(before if after.outcome == "none" else after, note=note)


@dataclass(frozen=True)
class _Members:
    """Some members of an ensemble."""

    predictor: Predictor
    members: tuple[int, ...]

    def predict(self, prompt: Prompt) -> Tensor:
        return predict(self.predictor, prompt)[list(self.members)]


def decide_round(
    subject: Subject, asked: Round, member: int, thresholds: Thresholds, among: Sequence[str] | None = None
) -> Verdict:
    """What one round says of one of its members, of all rivals or `among` some."""
    evidence = asked.evidence(member)
    if among is not None:
        evidence["disagreement"] = {name: evidence["disagreement"][name] for name in among}
    n_steps = subject.n_steps * asked.family.loops
    if n_steps == 1:  # which has no use for gamma
        evidence["gammas"] = {}
    return decide(**evidence, relations=Relations.of_values(n_steps, subject.looped), thresholds=thresholds)


def _of_members(fit: Fit, name: str, members: Sequence[int], n_steps: int) -> Fit:
    """A fit of some members, its learner as deep as asked for."""
    index = list(members)
    chosen = {key: value[index] for key, value in fit.constants.items()}
    at_bound = {key: hit[index] for key, hit in fit.at_bound.items()}
    return Fit(build(name, n_steps, chosen), chosen, fit.n_constants, fit.disagreement[index], at_bound)


def _left_over(asked: Round, name: str, member: int) -> float:
    return float(asked.comparison.disagreement[name][asked.members.index(member)].nanquantile(0.5))


def _worth_asking(
    search: Sequence[Separation], own: PromptFamily, nearest: str, subject: Subject
) -> list[PromptFamily]:
    """The families that part the nearest rival from all others better than the subject's own prompts do, best first."""

    def parts(separation: Separation) -> float:
        above = richer(subject.n_steps * separation.family.loops, subject.looped)
        gap = separation.gap
        others = [name for name in gap if name != nearest]
        away = [gap[nearest][name] for name in others if name not in above[nearest]]
        back = [gap[name][nearest] for name in others if nearest not in above[name]]
        return min([*away, *back], default=0.0)

    fit = {separation.family: parts(separation) for separation in search if not separation.note}
    better = [family for family in fit if fit[family] > fit.get(own, 0.0)]
    return sorted(better, key=lambda family: -fit[family])
