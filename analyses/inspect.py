"""Which learner do the weights in a folder run? Evidence at four levels on fresh tasks, and a verdict.

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

from algorithms.bank import bank_for
from analyses import planted_regression, planted_values
from analyses.evidence import evidence
from analyses.examine import FITTING_TASKS, HELD_OUT_TASKS, Examination, Round, examine
from analyses.questions import ASKED, questions
from models.artifacts import load_subject
from models.linear import LinearTransformer
from models.networks import Network, build
from probes.behaviour import Subject, task_interval
from probes.example_weights import ExampleReading, read_example_weights
from probes.verdict import Finding, Verdict, tally
from probes.weights import WeightReading, read_weights
from tasks.errors import require
from tasks.progress import progress, ticking

# Task, states, transitions and features of the planted value estimators: what their confidence holds for.
PLANTED = ("boyan-chain", 10, 30, 4)
BANKS = ("linear", "all")
NONLINEAR_VALUES = {"softmax-td"}  # of value estimators; regression has its smoothers in the standard bank


def inspect(
    folder: Path, task: str, *, n_states: int = 10, context_length: int | None = None, rivals: str = "linear"
) -> dict[str, Any]:
    """The evidence and the verdict on the network in a folder, as plain data (see `report`).

    rivals: "linear" for the standard bank, "all" for the learners too whose values are not linear in the query's
    features. Raises ConfigError or ArtifactError with one clear line for an unknown task or a folder that holds no
    network.
    """
    require("task", task, ASKED)
    require("rivals", rivals, BANKS)
    model = load_subject(folder)
    bank = bank_for(model.layout).keys() | (NONLINEAR_VALUES if rivals == "all" else set())
    return report(model, task, n_states=n_states, context_length=context_length, rivals=bank)


def report(
    model: Network,
    task: str,
    *,
    n_states: int = 10,
    context_length: int | None = None,
    representable: bool = False,
    fitting_tasks: int = FITTING_TASKS,
    held_out_tasks: int = HELD_OUT_TASKS,
    rivals: Collection[str] | None = None,
) -> dict[str, Any]:
    """Plain data that JSON can hold, null where a number makes no sense for this subject:

    subject, task, weights (constants by name, [seeds][layers]; null without merged weights), rivals (constants, how
    many numbers they are, which of them stopped at a bound, the median disagreement on held-out tasks with its
    interval, and the share of tasks on which the rival diverges; medians over seeds, null for a matrix of several
    seeds), rival_distances, seed_disagreement, searches (which prompts were found to part the rivals that were left),
    verdict, and per seed in seeds the verdict with its rivals, the prompts it was asked on, and its findings.
    """
    model = build(model.config, {name: weight.detach().double() for name, weight in model.named_parameters()})
    subject = Subject.of(model)
    families, prompts = questions(
        task, model, n_states=n_states, context_length=context_length, representable=representable
    )
    rivals = bank_for(model.layout).keys() if rivals is None else rivals
    weights = _weights(model)
    linear = isinstance(model, LinearTransformer) and model.config.activation == "linear"
    length = families[0].context_length
    as_planted = (task, n_states, length, model.layout.d_features) == PLANTED or planted_regression.is_planted(
        families[0].source, length
    )
    deepest = (planted_regression if "label" in model.layout else planted_values).DEEPEST[subject.looped]
    shallow = subject.n_steps <= deepest
    counted = linear and shallow and as_planted and not representable and set(rivals) == bank_for(model.layout).keys()
    with progress(total=2, unit="stage", desc="fitting rivals") as bar, ticking(bar):
        examination = examine(
            subject,
            families,
            prompts,
            fitting_tasks=fitting_tasks,
            held_out_tasks=held_out_tasks,
            starts=weights and weights.starts(),
            rivals=rivals,
        )
        bar.set_description_str("testing layers, weights and edits", refresh=False)
        bar.update()
        verdicts = evidence(model, examination, weights, partial(prompts, families[0]), counted=counted)
    own = examination.rounds[0]
    comparison = own.comparison
    plain = {
        "subject": {
            **model.config.to_json(),
            "seeds": model.n_seeds,
            "diverged": comparison.diverged.tolist(),
            "skill": comparison.skill.tolist(),
            "prompts": {
                "queries": len(prompts(own.family, "inspect/held-out", 1).queries),
                "context_length": own.family.context_length,
                "held_out_tasks": held_out_tasks,
            },
        },
        "task": task,
        "weights": weights and {name: value.tolist() for name, value in weights.constants().items()},
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


def _weights(model: Network) -> WeightReading | ExampleReading | None:
    """What merged weights encode; None where there are none."""
    if not isinstance(model, LinearTransformer):
        return None
    return read_example_weights(model) if "label" in model.layout else read_weights(model)


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
    """The same data as JSON holds it: lists, and None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: _null_where_undefined(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_where_undefined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
