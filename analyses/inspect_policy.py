"""Which learner does the policy in a folder run? Its laws on designed contexts, every rival's, and a verdict by seed.

The report has the shape of `analyses.inspect`, with what only value estimators have left out: weights, searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from algorithms.fit_laws import law_divergence
from analyses.examine_laws import LawExamination, examine_laws
from analyses.policy_questions import POLICY_TASKS, ROOMS, policy_question
from analyses.policy_subjects import in_batches
from models.artifacts import load_policy
from models.config import ConfigError
from models.foreign_policy import InspectablePolicy, require_causal
from probes.verdict import Finding, Relations, Verdict, tally
from tasks.errors import require

CONTEXTS = 12  # of every kind; half of them are fitted to
CONTEXTS_IN_ROOMS = 6  # where every step takes longer
MOST_STEPS = 50


def inspect_policy(
    folder: Path, task: str, *, context_length: int | None = None, horizon: int | None = None
) -> dict[str, Any]:
    """The evidence and the verdict on the policy in a folder, as plain data.

    context_length: steps of a context, at most the policy's own. horizon: steps of an episode in a room, None for the
    published ones. Raises ConfigError or ArtifactError with one clear line for an unknown task, a folder that holds no
    policy, or one that was made for something else.
    """
    require("task", task, POLICY_TASKS)
    policy = load_policy(folder)
    return report(policy, task, context_length=context_length, horizon=horizon)


def report(
    policy: InspectablePolicy,
    task: str,
    *,
    context_length: int | None = None,
    horizon: int | None = None,
    rivals: Sequence[str] | None = None,
    contexts: int | None = None,
) -> dict[str, Any]:
    """Plain data that JSON can hold; see `analyses.inspect.report`. Any policy will do that has laws and a shape.

    rivals: None for all of the task. contexts: of every kind, half of them fitted to. Raises ConfigError for a policy
    that was made for something else, or one whose laws depend on what comes later.
    """
    if not isinstance(policy, InspectablePolicy):
        kind = type(policy).__name__
        raise ConfigError(f"a {kind} has no laws to inspect; wrap it in models.foreign_policy.AdaptedPolicy")
    config = policy.config
    length = min(config.n_ctx, MOST_STEPS) if context_length is None else context_length
    if not 2 <= length <= config.n_ctx:
        raise ConfigError(f"context_length is {length}; allowed: 2 to {config.n_ctx}, the steps that this policy sees")
    contexts = contexts or (CONTEXTS_IN_ROOMS if task in ROOMS else CONTEXTS)
    asked = policy_question(task, config, length, contexts, rivals, horizon)
    require_causal(policy, asked.history)
    laws = in_batches(policy.laws, asked.history).double()
    n_fitting = len(asked.kinds) * (contexts // 2)
    found = examine_laws(laws, asked.history, asked.rivals, n_fitting=n_fitting, settings=asked.settings)
    n_seeds, held_out = len(laws), asked.history.batch[1] - n_fitting
    seeds = list(range(n_seeds))
    between = law_divergence(laws, laws.roll(1, 0)).mean(-1) / found.floor
    return {
        "subject": {
            **config.to_json(),
            "seeds": n_seeds,
            "diverged": [0.0] * n_seeds,
            "information": [_number(floor) for floor in found.floor],
            "prompts": {"queries": length, "context_length": length, "held_out_tasks": held_out},
        },
        "task": task,
        "weights": None,
        "rivals": _rivals(found, seeds),
        "rival_distances": _distances(found),
        "seed_disagreement": _number(between.nanmedian()) if n_seeds > 1 else None,
        "searches": [],
        "verdict": _plain(tally(found.verdicts)),
        "seeds": [_seed(found, asked.kinds, seed) for seed in seeds],
    }


def _seed(found: LawExamination, kinds: Sequence[str], seed: int) -> dict[str, Any]:
    verdict = found.verdicts[seed]
    own = {"family": {"name": f"{', '.join(kinds)} contexts"}, "rivals": _rivals(found, [seed])}
    finding = asdict(_behaviour(found, verdict, seed))
    finding["seen"] = {name: {end: _number(x) for end, x in ends.items()} for name, ends in finding["seen"].items()}
    return {
        **_plain(verdict),
        "noise": _number(verdict.noise),
        "margin": _number(verdict.margin),
        "rivals": own["rivals"],
        "prompts": [own],
        "findings": [finding],
    }


def _behaviour(found: LawExamination, verdict: Verdict, seed: int) -> Finding:
    """What every rival leaves of the laws, and whom that excludes: all but those named and those that contain them."""
    above = Relations.of_laws().above
    kept = {*verdict.learners}.union(*(above[name] for name in verdict.learners))
    seen = {name: found.interval(name, seed) for name in found.fits}
    excluded = tuple(name for name in seen if verdict.learners and name not in kept)
    return Finding("behavioural", "laws on designed contexts", "unexplained", 0.0, seen, excluded, verdict.note)


def _rivals(found: LawExamination, seeds: list[int]) -> dict[str, Any]:
    rivals = {}
    for name, fit in found.fits.items():
        intervals = [found.interval(name, seed) for seed in seeds]
        middle = sorted(intervals, key=lambda interval: interval.value)[(len(seeds) - 1) // 2]
        rivals[name] = {
            "constants": {key: float(value[seeds, 0].median()) for key, value in fit.constants.items()},
            "n_constants": len(fit.constants),
            "at_bound": [key for key, hit in fit.at_bound.items() if hit[seeds].any()],
            "disagreement": _number(middle.value),
            "low": _number(middle.low),
            "high": _number(middle.high),
            "diverged": 0.0,
        }
    return rivals


def _distances(found: LawExamination) -> dict[str, dict[str, float | None]]:
    """Medians over seeds; None from a rival that always says the same."""
    return {
        a: {b: _number(gap.nanmedian()) for b, gap in others.items() if b != a} for a, others in found.distances.items()
    }


def _number(value: float | Tensor) -> float | None:
    """As JSON holds it."""
    return float(value) if math.isfinite(value) else None


def _plain(verdict: Verdict) -> dict[str, Any]:
    return {"outcome": verdict.outcome, "learners": list(verdict.learners), "note": verdict.note, "confidence": None}
