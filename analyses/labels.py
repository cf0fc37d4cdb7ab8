"""The right names of a network planted near a known learner, by a rule that is fixed in advance and sees no verdict.

`noise` is the disagreement E (f - a)^2 / E f^2 of the subject f from the planted learner a with its *true* constants,
median over reference tasks. An *exact* network runs its learner, and whatever is one function with it. For any other:

1. noise <= SAME: the planted learner is right, and so is every richer one that contains it.
2. Else its constants may have moved. The planted learner and those that contain it are refitted, starting at the true
   constants; then, if none of them leaves <= SAME, all other rivals are fitted too. Those that leave <= SAME are right.
3. If even the best of all rivals leaves more than OTHER, no learner is right: the answer is `none`.
4. In between the member is *borderline*: the planted learner, those that contain it, and `none` all count as right.
5. Under rule 1 a simpler learner that the planted one contains is right too, if it leaves of the planted learner itself
   no more than the noise: the weights were then moved farther than from the one learner to the other.

A subject that diverges on most tasks has no right name. What a refitted rival leaves is measured on reference tasks of
its own, as a median; no task of an inspection is a reference task, since the streams differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.bank import bank_for, one_function, richer
from algorithms.fit import converges, disagreement, fit_bank, one_thread
from algorithms.learner import Learner, constants
from models.files import write_json
from models.folder import read_json
from probes.behaviour import Predictor, predict
from probes.verdict import MOSTLY
from tasks.layout import Prompt, PromptSource, TokenLayout

SAME = 0.01
OTHER = 0.04
REFERENCE_TASKS = 256  # to fit on, and as many others to measure on
DIVERGING = 1e9  # what a rival leaves that diverges on most tasks: JSON knows no infinity


@dataclass(frozen=True)
class Labels:
    """Per member: the right names (none: only `none` is right), the noise, whether `none` is right as well.

    strict: the right names without rule 5.
    """

    right: tuple[frozenset[str], ...]
    strict: tuple[frozenset[str], ...]
    noise: tuple[float, ...]
    borderline: tuple[bool, ...]


@one_thread()
@torch.no_grad()
def label(
    subject: Predictor,
    planted: str,
    learner: Learner,
    prompts: tuple[Prompt, Prompt],
    *,
    n_steps: int,
    looped: bool,
    exact: Sequence[bool],
    folder: Path,
) -> Labels:
    """Labels the members of an ensemble planted as `planted`, whose true constants [members, 1, ...] `learner` holds.

    prompts: the reference tasks. What refitted rivals leave is kept in `folder`, under a checksum of the predictions
    that they were fitted to.
    """
    fitting, checking = (predict(subject, prompt) for prompt in prompts)
    diverged = (1 - converges(checking, prompts[1]).double().mean(-1)) > MOSTLY
    noise = median_disagreement(checking, learner.predict(prompts[1]), prompts[1])
    equal = one_function(planted, n_steps)
    family = equal.union(*(richer(n_steps, looped)[name] for name in equal))
    right = [equal if e else family if x <= SAME else frozenset[str]() for e, x in zip(exact, noise, strict=True)]
    borderline = [False] * len(right)

    def leave(members: list[int], rivals: Collection[str]) -> dict[str, list[float]]:
        true = {name: getattr(learner, name)[members] for name in constants(learner)}
        predictions = fitting[members], checking[members]
        return _leftovers(predictions, prompts, rivals, {planted: true}, n_steps, looped, folder)

    def settle(members: list[int], rivals: Collection[str]) -> dict[int, float]:
        """Names the rivals that fit the members; what the best leaves of those that none fits."""
        left = leave(members, rivals) if members else {}
        best = {}
        for position, member in enumerate(members):
            right[member] = frozenset(name for name in left if left[name][position] <= SAME)
            if not right[member]:
                best[member] = min(values[position] for values in left.values())
        return best

    moved = [i for i in range(len(right)) if not exact[i] and not right[i] and not diverged[i]]
    within = settle(moved, family)
    for member, least in settle(list(within), bank_for(prompts[0].layout).keys() - family).items():
        borderline[member] = min(least, within[member]) <= OTHER
        right[member] = family if borderline[member] else frozenset()
    strict = tuple(frozenset() if gone else names for names, gone in zip(right, diverged.tolist(), strict=True))
    for name, left in _simpler(planted, learner, prompts, n_steps, looped, folder).items():
        for member, (gap, x) in enumerate(zip(left, noise, strict=True)):
            if not exact[member] and gap <= x <= SAME:
                right[member] |= {name}
    for member in torch.nonzero(diverged)[:, 0].tolist():
        right[member] = frozenset()
    return Labels(tuple(right), strict, tuple(noise.tolist()), tuple(borderline))


def reference_prompts(source: PromptSource, context_length: int, layout: TokenLayout) -> tuple[Prompt, Prompt]:
    """REFERENCE_TASKS tasks to fit on and others to measure on, none of which an inspection reads."""
    fit, check = (_reference_prompt(source, context_length, layout, purpose) for purpose in ("fit", "check"))
    return fit, check


@cache
def _reference_prompt(source: PromptSource, context_length: int, layout: TokenLayout, purpose: str) -> Prompt:
    """float64, batch axes (1, tasks)."""
    prompt = source.fresh_prompt([0], f"planted/reference/{purpose}", 0, REFERENCE_TASKS, context_length, layout)
    return prompt.to(torch.float64)


def median_disagreement(
    f: Float[Tensor, "members tasks queries 1"], g: Float[Tensor, "#members tasks queries 1"], prompt: Prompt
) -> Float[Tensor, " members"]:
    """Median of E (f - g)^2 / E f^2 over the tasks where f converges; infinite on those where g does not."""
    values = torch.where(converges(g, prompt), disagreement(f, g, prompt), torch.inf)
    return torch.where(converges(f, prompt), values, torch.nan).nanmedian(-1).values


def _simpler(
    planted: str, learner: Learner, prompts: tuple[Prompt, Prompt], n_steps: int, looped: bool, folder: Path
) -> dict[str, list[float]]:
    """What the learners that `planted` contains leave of it, member by member."""
    contained = [name for name, above in richer(n_steps, looped).items() if planted in above]
    fitting, checking = (learner.predict(prompt) for prompt in prompts)
    return _leftovers((fitting, checking), prompts, contained, {}, n_steps, looped, folder)


def _leftovers(
    predictions: tuple[Tensor, Tensor],
    prompts: tuple[Prompt, Prompt],
    rivals: Collection[str],
    starts: dict[str, dict[str, Tensor]],
    n_steps: int,
    looped: bool,
    folder: Path,
) -> dict[str, list[float]]:
    """Per rival what it leaves of every member, fitted on the first predictions and measured on the second."""
    digest = hashlib.blake2b(repr((sorted(rivals), n_steps, looped)).encode(), digest_size=10)
    for values in predictions:
        digest.update(values.contiguous().numpy().tobytes())
    path = folder / "labels" / f"{digest.hexdigest()}.json"
    if path.exists():
        return read_json(path)
    fits = fit_bank(predictions[0], prompts[0], n_steps=n_steps, shared=looped, starts=starts, rivals=rivals)
    left = {
        name: median_disagreement(predictions[1], fit.learner.predict(prompts[1]), prompts[1])
        for name, fit in fits.items()
    }
    table = {name: values.nan_to_num(nan=DIVERGING, posinf=DIVERGING).tolist() for name, values in left.items()}
    write_json(path, table)
    return table
