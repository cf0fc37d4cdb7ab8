"""Does editing what a learner relies on move the predictions by the amount that the learner predicts?

Each test is an intervention on a subject, with the change that *every* rival predicts of it from its own constants. Per
task, with E over the queries by prompt.weights,

    slope       = E seen · predicted / E predicted²       1: the change is the predicted one, plus what is orthogonal
    unexplained = E (seen - predicted)² / E seen²         0: it is the predicted one
    effect      = E seen² / E f²                          how much the edit does at all; f the unedited predictions

A slope of 1 alone can hide a wrong direction, so both are reported. A rival that predicts no change has no slope; one
without a counterpart of what is edited predicts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.fit import DIVERGED, as_real, converges, fit_bank, one_thread, square_mean
from algorithms.learner import Learner
from probes.behaviour import Interval, Predictor, predict, task_interval
from probes.interventions import CausalTest
from tasks.layout import Prompt

# A change whose square is below this share of the predictions' is rounding, or that of a fitted discount of zero.
NO_CHANGE = 1e-12


@dataclass(frozen=True)
class Agreement:
    """A rival's prediction of one test. NaN on tasks where subject or rival diverges; their share is `left_out`.

    slope is NaN also where the rival predicts no change (`predicts_none`: it does so on every task), unexplained
    infinite where nothing was seen of a predicted change.
    """

    slope: Float[Tensor, "seeds tasks"]
    unexplained: Float[Tensor, "seeds tasks"]
    left_out: Float[Tensor, " seeds"]
    predicts_none: Bool[Tensor, " seeds"]

    def interval(self, metric: Literal["slope", "unexplained"], seed: int) -> Interval:
        """Median over the tasks of one seed with its 95 % interval."""
        return task_interval(getattr(self, metric)[seed : seed + 1].numpy())


@dataclass(frozen=True)
class CausalFinding:
    """One test on one subject: the size of what was seen, and every rival's agreement (None: it predicts nothing).

    obstacle: why the test was not made, else empty. effect: per task, NaN where the subject diverges.
    """

    test: str
    obstacle: str
    effect: Float[Tensor, "seeds tasks"]
    rivals: dict[str, Agreement | None]


@one_thread()
@torch.no_grad()
def run_tests(
    subject: Predictor, learners: Mapping[str, Learner], prompt: Prompt, tests: Sequence[CausalTest]
) -> list[CausalFinding]:
    """Makes every test on a subject and compares the change with what each learner predicts.

    prompt: batch axes (1, tasks), on tasks other than those that the learners were fitted on.
    """
    findings = []
    for test in tests:
        obstacle = test.obstacle(subject)
        if obstacle:
            findings.append(CausalFinding(test.name, obstacle, torch.empty(0, 0), {}))
            continue
        asked = test.prompt(prompt)
        f, seen = predict(subject, asked), as_real(test.seen(subject, asked))
        rivals = {}
        for name, learner in learners.items():
            predicted = test.predicted(learner, asked)
            rivals[name] = None
            if predicted is not None:
                rivals[name] = _agree(f, seen, learner.predict(asked), as_real(predicted), asked)
        effect = _power(seen, asked) / square_mean(f, asked)
        findings.append(CausalFinding(test.name, "", torch.where(_sound(f, seen, asked), effect, torch.nan), rivals))
    return findings


@one_thread()
@torch.no_grad()
def causal_table(
    tests: Sequence[CausalTest], learners: Mapping[str, Learner], prompt: Prompt, *, n_steps: int, shared: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """table[test][a][b]: the share of the change that a predicts which b's prediction leaves unexplained.

    a has the constants given, b those *fitted* to a's unedited predictions, so a share near zero says that the test
    cannot tell b from a. Median over tasks; infinite where b predicts a change and a none, zero where neither does, NaN
    where a or b predicts nothing. The learners are the bank's, by name, with plain numbers for constants.
    """
    names = list(learners)
    stacked = torch.cat([learner.predict(prompt) for learner in learners.values()])
    fits = fit_bank(stacked, prompt, n_steps=n_steps, shared=shared, rivals=names)
    table = {}
    for test in tests:
        asked = test.prompt(prompt)
        f = torch.cat([learner.predict(asked) for learner in learners.values()])
        given = [test.predicted(learner, asked) for learner in learners.values()]
        shape = next(change.shape for change in given if change is not None)
        seen = torch.cat([f.new_full(shape, torch.nan) if change is None else change for change in given])
        shares = {}
        for b, fit in fits.items():
            predicted = test.predicted(fit.learner, asked)
            g = fit.learner.predict(asked)
            shares[b] = (
                torch.full((len(names),), torch.nan)
                if predicted is None
                else (_agree(f, seen, g, predicted, asked).unexplained.nanmedian(-1).values)
            )
        table[test.name] = {a: {b: float(shares[b][i]) for b in names} for i, a in enumerate(names)}
    return table


def _agree(f: Tensor, seen: Tensor, g: Tensor, predicted: Tensor, prompt: Prompt) -> Agreement:
    """f, g: unedited predictions [seeds, tasks, queries, 1] of subject and rival; seen, predicted: their changes."""
    seen, predicted = torch.broadcast_tensors(seen, predicted)
    none = _power(predicted, prompt) <= NO_CHANGE * square_mean(g, prompt)
    nothing_seen = _power(seen, prompt) <= NO_CHANGE * square_mean(f, prompt)
    kept = _sound(f, seen, prompt) & _sound(g, predicted, prompt)
    slope = _mean(seen * predicted, prompt) / _power(predicted, prompt)
    unexplained = _power(seen - predicted, prompt) / _power(seen, prompt)
    unexplained = torch.where(nothing_seen, torch.where(none, 0.0, torch.inf), unexplained)
    return Agreement(
        slope=torch.where(kept & ~none, slope, torch.nan),
        unexplained=torch.where(kept, unexplained, torch.nan),
        left_out=1 - kept.double().mean(-1),
        predicts_none=kept.any(-1) & (none | ~kept).all(-1),
    )


def _sound(values: Tensor, change: Tensor, prompt: Prompt) -> Bool[Tensor, "seeds tasks"]:
    """False on tasks where the predictions, or what an edit adds to them, diverge."""
    limit = DIVERGED**2 * square_mean(prompt.answers, prompt).mean()
    return converges(values, prompt) & (_power(change, prompt) <= limit)


def _power(change: Tensor, prompt: Prompt) -> Float[Tensor, "seeds tasks"]:
    return _mean(change.square(), prompt)


def _mean(values: Float[Tensor, "seeds tasks queries out"], prompt: Prompt) -> Float[Tensor, "seeds tasks"]:
    """E over the queries by their weights, and over the entries of a change."""
    weights = prompt.weights / prompt.weights.sum(-1, keepdim=True)
    return (weights * values.mean(-1)).sum(-1)
