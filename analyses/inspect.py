"""Which learner do the weights in a folder run? Behavioural and parametric evidence on fresh tasks, and a verdict.

The constants of every rival are fitted to the subject's predictions on one set of tasks; everything that is reported
comes from another. Prompts follow the subject's own layout, and all rivals read the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from algorithms.bank import LEARNERS, RIVALS
from analyses.evidence import evidence
from analyses.examine import FITTING_TASKS, HELD_OUT_TASKS, Examination, Round, examine
from analyses.subjects import CARTPOLE, TASKS, task_source
from models.artifacts import load_subject
from models.config import require
from models.linear import LinearTransformer
from models.networks import Network, build
from probes.behaviour import Subject, task_interval
from probes.discrimination import PromptFamily, Prompts, candidates, prompts_from
from probes.verdict import Finding, Verdict, tally
from probes.weights import read_weights

# Task, states, transitions and features of the planted benchmark: what its confidence holds for.
PLANTED = ("boyan-chain", 10, 30, 4)
BANKS = {"linear": RIVALS.keys(), "all": LEARNERS.keys()}


def inspect(
    folder: Path, task: str, *, n_states: int = 10, context_length: int = 30, rivals: str = "linear"
) -> dict[str, Any]:
    """The evidence and the verdict on the network in a folder, as plain data (see `report`).

    rivals: "linear" for the standard bank, "all" for the learners too whose values are not linear in the query's
    features. Raises ConfigError or ArtifactError with one clear line for an unknown task or a folder that holds no
    network.
    """
    require("task", task, TASKS)
    require("rivals", rivals, tuple(BANKS))
    sizes = {"n_states": n_states, "context_length": context_length}
    return report(load_subject(folder), task, rivals=BANKS[rivals], **sizes)


def report(
    model: Network,
    task: str,
    *,
    n_states: int = 10,
    context_length: int = 30,
    fitting_tasks: int = FITTING_TASKS,
    held_out_tasks: int = HELD_OUT_TASKS,
    rivals: Collection[str] = RIVALS.keys(),
) -> dict[str, Any]:
    """Plain data that JSON can hold, null where a number makes no sense for this subject:

    subject, task, weights (alpha_eff, gamma_eff: [seeds][layers]; null without merged weights), rivals (constants, how
    many numbers they are, which of them stopped at a bound, the median disagreement on held-out tasks with its
    interval, and the share of tasks on which the rival diverges; medians over seeds, null for a matrix of several
    seeds), rival_distances, seed_disagreement, searches (which prompts were found to part the rivals that were left),
    verdict, and per seed in seeds the verdict with its rivals, the prompts it was asked on, and its findings.
    """
    model = build(model.config, {name: weight.detach().double() for name, weight in model.named_parameters()})
    subject = Subject.of(model)
    families, prompts = questions(task, subject, n_states, context_length)
    weights = read_weights(model) if isinstance(model, LinearTransformer) else None
    examination = examine(
        subject,
        families,
        prompts,
        fitting_tasks=fitting_tasks,
        held_out_tasks=held_out_tasks,
        starts=weights and weights.starts(),
        rivals=rivals,
    )
    own = examination.rounds[0]
    linear = isinstance(model, LinearTransformer) and model.config.activation == "linear"
    as_planted = (task, own.family.n_states, context_length, model.layout.d_features) == PLANTED
    counted = linear and as_planted and set(rivals) == RIVALS.keys()
    verdicts = evidence(model, examination, weights, partial(prompts, families[0]), counted=counted)
    comparison = own.comparison
    plain = {
        "subject": {
            **model.config.to_json(),
            "seeds": model.n_seeds,
            "diverged": comparison.diverged.tolist(),
            "skill": comparison.skill.tolist(),
            "prompts": {
                "n_states": len(prompts(own.family, "inspect/held-out", 1).queries),
                "context_length": own.family.context_length,
                "held_out_tasks": held_out_tasks,
            },
        },
        "task": task,
        "weights": weights and {name: getattr(weights, name).tolist() for name in ("alpha_eff", "gamma_eff")},
        "rivals": _rivals(own, list(range(model.n_seeds))),
        "rival_distances": {
            a: {b: float(distance.nanquantile(0.5)) for b, distance in others.items() if b != a}
            for a, others in comparison.distance.items()
        },
        "seed_disagreement": comparison.seed_disagreement,
        "searches": _searches(examination),
        "verdict": _plain_verdict(tally(verdicts)),
        "seeds": [_seed(examination, verdict, seed) for seed, verdict in enumerate(verdicts)],
    }
    return _null_where_undefined(plain)


def questions(
    task: str, subject: Subject, n_states: int, context_length: int
) -> tuple[tuple[PromptFamily, ...], Prompts]:
    """The families of prompts that a subject can be asked on, its own first, and what makes them."""
    layout = subject.layout
    source = task_source(task, n_states=n_states, d_features=layout.d_features, gamma=min(subject.gamma, 0.99))
    families = candidates(
        looped=subject.can_loop,
        d_features=layout.d_features,
        context_length=context_length,
        n_states=n_states,
        discount=layout.discount,
    )
    if task == CARTPOLE:
        tasks = {(family.n_states, family.reward, family.feature_rank) for family in families[:1]}
        families = tuple(f for f in families if (f.n_states, f.reward, f.feature_rank) in tasks)
    return families, prompts_from(source, layout)


def _rivals(asked: Round, seeds: list[int]) -> dict[str, Any]:
    """The rivals of a round, for some of its members."""
    fits, comparison, rivals = asked.fits, asked.comparison, {}
    for name in fits:
        interval = task_interval(comparison.disagreement[name][seeds].numpy())
        rivals[name] = {
            "constants": {key: _over_seeds(value[seeds, 0], key) for key, value in fits[name].constants.items()},
            "n_constants": fits[name].n_constants,
            "at_bound": [key for key, hit in fits[name].at_bound.items() if hit[seeds].any()],
            "disagreement": interval.value,
            "low": interval.low,
            "high": interval.high,
            "diverged": float(comparison.rival_diverged[name][seeds].mean()),
        }
    return rivals


def _over_seeds(values: Tensor, key: str) -> Any:
    """The median of a constant [seeds, ...]; None for matrices of several seeds, whose medians are no seed's matrix."""
    if key == "preconditioner" and len(values) > 1:
        return None
    return values.nanquantile(0.5, 0).tolist()


def _seed(examination: Examination, verdict: Verdict, seed: int) -> dict[str, Any]:
    asked = examination.rounds_of(seed)
    return {
        **_plain_verdict(verdict),
        "noise": verdict.noise,
        "margin": verdict.margin,
        "rivals": _rivals(asked[0], [seed]),
        "prompts": [
            {"family": asdict(again.family), "rivals": _rivals(again, [again.members.index(seed)])} for again in asked
        ],
        "findings": [_finding(finding) for finding in verdict.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "excluded": list(finding.excluded)}


def _searches(examination: Examination) -> list[list[dict[str, Any]]]:
    return [
        [
            {
                "family": asdict(found.family),
                "smallest_gap": found.smallest,
                "closest": found.closest,
                "note": found.note,
            }
            for found in search
        ]
        for search in examination.searches
    ]


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    confidence = None if verdict.confidence is None else asdict(verdict.confidence)
    return {
        "outcome": verdict.outcome,
        "learners": list(verdict.learners),
        "note": verdict.note,
        "confidence": confidence,
    }


def _null_where_undefined(value: Any) -> Any:
    """The same data with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _null_where_undefined(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_null_where_undefined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
