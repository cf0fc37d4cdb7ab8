"""The findings behind a verdict, level by level: what was tested, what every rival predicts, what was seen.

Four levels that are never promoted into one another. The verdict is decided by behaviour alone; the other levels say
whether layers carry the learner's iterates, whether the weights are its construction, and whether editing its internal
quantities moves the predictions as it says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from algorithms.bank import richer
from algorithms.fit import disagreement
from algorithms.learner import Learner
from analyses.examine import Examination, Round, decide_round
from analyses.tables import tidy
from models.config import RecurrentConfig, ValueTransformerConfig
from models.linear import LinearTransformer
from models.networks import Network
from probes.behaviour import Interval, median_interval
from probes.calibration import confidence, shipped
from probes.causal import run_tests
from probes.example_interventions import example_tests
from probes.example_weights import ExampleReading
from probes.interventions import standard_tests
from probes.lens import layer_predictions
from probes.sequence_interventions import sequence_tests
from probes.verdict import THRESHOLDS, Finding, Level, Verdict
from probes.weights import WeightReading
from tasks.layout import Prompt

LAYER_TASKS = 100
CAUSAL_TASKS = 60
# A prediction that misses more of a change than this is not of that change.
MOST_MISSED = 0.25
NOTHING = {"value": None, "low": None, "high": None}
# Networks that no activation names.
KINDS = {ValueTransformerConfig.MODEL: "softmax attention with MLPs", RecurrentConfig.MODEL: "tanh RNN"}
SHARE = "unexplained share"
# by what a network learns from
TESTS = {"reward": standard_tests, "label": example_tests, "features": sequence_tests}
SLOPE, MISSED = "slope of seen on predicted change", "unexplained share of the change"


def evidence(
    model: Network,
    examination: Examination,
    weights: WeightReading | ExampleReading | None,
    prompts: Callable[[str, int], Prompt],
    *,
    counted: bool,
) -> list[Verdict]:
    """Every member's verdict with its findings and its confidence. prompts(purpose, n): n of the subject's own.

    Without merged weights (`weights` is None) there is nothing to say of layers and weights. counted: whether the
    planted benchmark holds such networks and prompts; no confidence is carried over to others.
    """
    first = examination.rounds[0]
    layers = _representational(model, first, prompts("inspect/held-out", LAYER_TASKS))
    moved = _causal(model, first, prompts("inspect/causal", CAUSAL_TASKS))
    return [
        replace(
            verdict,
            confidence=confidence(verdict, shipped(model.layout.target)) if counted else None,
            findings=(
                *_behavioural(examination, i),
                *layers[i],
                _parametric(weights, i),
                *moved[i],
            ),
        )
        for i, verdict in enumerate(examination.verdicts)
    ]


def _behavioural(examination: Examination, member: int) -> list[Finding]:
    """One finding per round: what each rival, fitted on other tasks, leaves unexplained of the predictions."""
    subject, findings = examination.subject, []
    for asked in examination.rounds_of(member):
        i = asked.members.index(member)
        seen = {name: median_interval(values[i].numpy()) for name, values in asked.comparison.disagreement.items()}
        above = richer(subject.n_steps * asked.family.loops, subject.looped)
        said = decide_round(subject, asked, member, THRESHOLDS)
        contain = frozenset().union(*(above[name] for name in said.learners))
        left = seen.keys() if said.outcome == "none" else {*said.learners, *contain}
        excluded = tuple(name for name in seen if name not in left)
        test = f"predictions on {asked.family.name}"
        findings.append(Finding("behavioural", test, SHARE, 0.0, seen, excluded, said.note))
    return findings


def _representational(model: Network, first: Round, held_out: Prompt) -> list[list[Finding]]:
    """Per member: how far every inner layer's read-out is from the rival's iterate of that step, the worst layer."""
    test = "read-outs of the inner layers"
    if not isinstance(model, LinearTransformer) or model.config.n_layers == 1:
        merged = isinstance(model, LinearTransformer)
        obstacle = "one layer has no inner ones" if merged else "needs merged weights P and Q"
        return [[_not_made("representational", test, SHARE, obstacle)] for _ in range(model.n_seeds)]
    read = layer_predictions(model, held_out)[1:-1]  # [layers - 1, seeds, tasks, queries, 1]
    worst: dict[str, list[Interval]] = {}
    for name, fit in first.fits.items():
        iterates = fit.learner(held_out).predictions
        if len(iterates) != model.config.n_layers + 1:
            continue
        gaps = torch.stack([_gap(layer, step, held_out) for layer, step in zip(read, iterates[1:-1], strict=True)])
        worst[name] = [_worst(gaps[:, i].numpy()) for i in range(model.n_seeds)]
    findings = []
    for i in range(model.n_seeds):
        seen = {name: intervals[i] for name, intervals in worst.items()}
        excluded = tuple(name for name, interval in seen.items() if interval.low > THRESHOLDS.fits)
        findings.append([Finding("representational", test, SHARE, 0.0, seen, excluded)])
    return findings


def _not_made(level: Level, test: str, statistic: str, obstacle: str) -> Finding:
    """A test that says nothing of any rival, and why."""
    return Finding(level, test, statistic, 1.0 if statistic == SLOPE else 0.0, {}, (), obstacle)


def _gap(layer: Tensor, step: Tensor, prompt: Prompt) -> Tensor:
    return disagreement(layer, step.expand_as(layer), prompt)


def _worst(gaps: np.ndarray) -> Interval:
    """Of [layers, tasks] the layer with the largest median."""
    intervals = [median_interval(layer) for layer in gaps]
    return max(intervals, key=lambda interval: -np.inf if np.isnan(interval.value) else interval.value)


def _parametric(weights: WeightReading | ExampleReading | None, member: int) -> Finding:
    """How far the weights are from every construction that the architecture admits: a number, so without interval."""
    test, statistic, seen = "weights against constructions", "squared distance", {}
    for name, fit in weights.constructions.items() if weights else ():
        distance = fit.distance[member].max().item()
        if not math.isnan(distance):
            seen[name] = Interval(distance, distance, distance)
    if weights is None or not seen:
        obstacle = "no construction has such weights" if weights else "needs merged weights P and Q"
        return _not_made("parametric", test, statistic, obstacle)
    nearest = min(seen, key=lambda name: seen[name].value)
    constants = weights.constructions[nearest].constants
    read = ", ".join(
        f"{key} {' '.join(f'{x:.2g}' for x in value[member].tolist())}" for key, value in constants.items()
    )
    note = f"nearest: {nearest}" + (f" with {read}" if read else "")
    return Finding("parametric", test, statistic, 0.0, seen, (), note)


def _causal(model: Network, first: Round, prompt: Prompt) -> list[list[Finding]]:
    """Per member two findings per test that can be made: the slope, and what the prediction misses of the change.

    What is erased is the TD error of the nearest rival that has one at every layer. The random erasures are its
    controls and speak against nobody.
    """
    learners = {name: fit.learner for name, fit in first.fits.items()}
    tests = TESTS[prompt.layout.target](model.config.n_layers, _probed(first, model.config.n_layers, prompt))
    findings: list[list[Finding]] = [[] for _ in range(model.n_seeds)]
    for found in run_tests(model, learners, prompt, tests):
        agreements = {name: agreement for name, agreement in found.rivals.items() if agreement is not None}
        if not agreements:
            obstacle = found.obstacle or "no rival has a counterpart of what is edited"
            for mine in findings:
                mine.append(_not_made("causal", found.test, SLOPE, obstacle))
            continue
        for i, mine in enumerate(findings):
            missed = {name: agreement.interval("unexplained", i) for name, agreement in agreements.items()}
            slopes = {name: agreement.interval("slope", i) for name, agreement in agreements.items()}
            excluded = tuple(name for name, interval in missed.items() if interval.low > MOST_MISSED)
            effect = float(found.effect[i].nanquantile(0.5))
            note = f"the edit changes the predictions by {effect:.2g} of their mean square"
            excluded = () if found.test.startswith("random") else excluded
            mine.append(Finding("causal", found.test, SLOPE, 1.0, slopes, excluded, note))
            mine.append(Finding("causal", found.test, MISSED, 0.0, missed, excluded))
    return findings


def _probed(first: Round, n_layers: int, prompt: Prompt) -> Learner | None:
    """The nearest rival (median over members) with errors at every layer; None where a network has no inner one."""
    if n_layers == 1:
        return None
    order = sorted(first.fits, key=lambda name: float(first.comparison.disagreement[name].nanquantile(0.5)))
    few = prompt.select(slice(0, 1))
    for name in order:
        errors = first.fits[name].learner(few).error
        if errors is not None and len(errors) == n_layers + 1:
            return first.fits[name].learner
    return None


def card(report: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """A report as the tables of the evidence card: `answers`, a row per seed, and `findings`, one per rival and test.

    value of an answer is its confidence; threshold of a finding is what a rival may leave unexplained and still fit. A
    test that could not be made is one row without learner; its note says why.
    """
    told = report["subject"]
    subject = f"{architecture(told)}, d = {told['d_features']}, on {report['task']}"
    answers, findings = [], []
    for seed, said in enumerate(report["seeds"]):
        sure = said["confidence"] or {}
        ends = {"value": sure.get("rate"), "low": sure.get("low"), "high": sure.get("high"), "n": sure.get("n")}
        names = ", ".join(said["learners"])
        answers.append({"seed": seed, "learner": names, "outcome": said["outcome"], "note": said["note"], **ends})
        for finding in said["findings"]:
            if finding["statistic"] == MISSED:
                continue  # it fills the markers of the slopes
            share = finding["level"] == "behavioural"
            about = {
                "seed": seed,
                "target": finding["test"],
                "metric": finding["statistic"],
                "level": finding["level"],
                "expected": finding["expected"],
                "threshold": THRESHOLDS.fits if share else np.nan,
                "note": "" if finding["seen"] else finding["note"],
            }
            findings += [
                {
                    **about,
                    "learner": name,
                    "excluded": name in finding["excluded"] or (share and (interval["low"] or 0) > THRESHOLDS.fits),
                    **interval,
                }
                for name, interval in (finding["seen"] or {"": NOTHING}).items()
            ]
    return {name: _table(rows, subject) for name, rows in (("answers", answers), ("findings", findings))}


def verdict_counts(answers: pd.DataFrame) -> str:
    """How many seeds say what, the most frequent first: "3 none, 1 ambiguous (td0, lstd)"."""
    counts = answers.groupby(["outcome", "learner"], sort=False).size().sort_values(ascending=False, kind="stable")
    said = (f"{n} {outcome} ({names})" if names else f"{n} {outcome}" for (outcome, names), n in counts.items())
    return ", ".join(said)


def architecture(subject: Mapping[str, Any]) -> str:
    """A network in words, from its part of the report: its kind and its depth."""
    model = subject["model"]
    kind = f"{subject['activation']} attention" if "activation" in subject else KINDS.get(model, model)
    if subject["n_layers"] == 1:
        return f"{kind}, 1 layer"
    return f"{kind}, {subject['n_layers']} {'turns of one layer' if subject.get('looped') else 'layers'}"


def _table(rows: list[dict[str, Any]], subject: str) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    table = tidy(frame.value.astype(float), {"row": range(len(frame))}, analysis="inspect", subject=subject)
    return table.drop(columns="row").assign(**{name: frame[name].to_numpy() for name in frame.columns})
