"""Two networks side by side, a value estimator and a policy, say: what each leaves of its rivals, and what both share.

Each is inspected by the reader that fits its folder, on a task of its own. A value estimator and a policy have rivals
of different names, so these are put together by what they do with a reward (`KINDS`). What a rival leaves is a share of
what its network says, 0 to 1 in both: squared differences of predictions, or KL of laws. One is not the other's unit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analyses import inspect as values
from analyses import inspect_policy as policies
from analyses.evidence import architecture
from analyses.policy_questions import POLICY_TASKS, fitting_tasks
from analyses.questions import ALLOWED
from analyses.tables import tidy
from models.artifacts import load_subject
from models.folder import read_config
from models.policy_config import PolicyConfig
from probes.verdict import FITS

# What learners do with a reward; in other banks, of regression say, all are of one kind.
KINDS: dict[str, tuple[str, ...]] = {
    "bootstraps step by step": (
        "td0",
        "residual-gradient",
        "td-lambda",
        "td-plus-plus",
        "preconditioned-td",
        "average-reward-td",
        "softmax-td",
        "sarsa",
        "expected-sarsa",
        "q-learning",
        "actor-critic",
    ),
    "solves a model": ("lstd", "certainty-equivalence", "ucb-vi", "posterior-sampling", "goal-inference"),
    "caches where steps lead": ("successor-representation",),
    "credits returns": ("monte-carlo", "monte-carlo-control", "policy-gradient", "episodic-control"),
    "takes rewards as they come": ("reward-average", "myopic"),
}
OTHER = "other learners"


def compare(folders: Sequence[Path], tasks: Sequence[str | None]) -> dict[str, Any]:
    """The reports of both, as plain data: networks (folder and report), rivals (a row per rival: kind, and what it
    leaves of each, null where it was not asked) and shared (see `shared`).

    tasks: None for one that fits. Raises ConfigError or ArtifactError with one clear line, as an inspection does.
    """
    asked = [task or own_task(folder) for folder, task in zip(folders, tasks, strict=True)]
    reports = [
        (policies.inspect_policy if task in POLICY_TASKS else values.inspect)(folder, task)
        for folder, task in zip(folders, asked, strict=True)
    ]
    return {
        "networks": [
            {"folder": str(folder), "report": report} for folder, report in zip(folders, reports, strict=True)
        ],
        "rivals": rows(reports),
        "shared": shared(reports),
    }


def own_task(folder: Path) -> str:
    """The first task that fits the network in a folder; others that do are named on standard error. Raises as
    `compare`."""
    config = read_config(folder)
    policy = isinstance(config, PolicyConfig)
    first, *others = fitting_tasks(config) if policy else ALLOWED[load_subject(folder).layout.target]
    if others:
        also = f"{', '.join(others)} would fit, too; choose with --tasks, one for each folder"
        print(f"{folder} is asked on {first}: {also}", file=sys.stderr)
    return first


def kind_of(learner: str) -> str:
    return next((kind for kind, names in KINDS.items() if learner in names), OTHER)


def rows(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every rival of either network, by kind, with what it leaves of each: {value, low, high}, null if not asked."""
    found = []
    for kind in (*KINDS, OTHER):
        names = dict.fromkeys(name for report in reports for name in report["rivals"] if kind_of(name) == kind)
        found += [{"kind": kind, "learner": name, "leaves": [_leaves(r, name) for r in reports]} for name in names]
    return found


def _leaves(report: Mapping[str, Any], name: str) -> dict[str, float | None] | None:
    rival = report["rivals"].get(name)
    return rival and {"value": rival["disagreement"], "low": rival["low"], "high": rival["high"]}


def shared(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """kinds: of the learners that each answer names, in order; same_kind: whether these are one and the same kind, null
    where an answer names nothing, or learners of no kind that is told apart here; nearest: the nearest rival of each;
    fit_both: rivals that fit both."""
    kinds = [list(dict.fromkeys(map(kind_of, report["verdict"]["learners"]))) for report in reports]
    told = all(kinds) and all(OTHER not in each for each in kinds)
    asked_of_both = [name for name in reports[0]["rivals"] if name in reports[1]["rivals"]]
    return {
        "kinds": kinds,
        "same_kind": kinds[0] == kinds[1] and len(kinds[0]) == 1 if told else None,
        "nearest": [nearest(report) for report in reports],
        "fit_both": [name for name in asked_of_both if all(_share(report, name) < FITS for report in reports)],
    }


def nearest(report: Mapping[str, Any]) -> str:
    """The rival that leaves the least."""
    return min(report["rivals"], key=lambda name: _share(report, name))


def _share(report: Mapping[str, Any], name: str) -> float:
    value = report["rivals"][name]["disagreement"]
    return math.inf if value is None else value


def render(comparison: Mapping[str, Any]) -> str:
    """Two columns: the networks, what each rival leaves of them, and the answers; then what they share."""
    reports = [network["report"] for network in comparison["networks"]]
    facts = {
        "folder": [network["folder"] for network in comparison["networks"]],
        "network": [architecture(report["subject"]) for report in reports],
        "task": [report["task"] for report in reports],
        "seeds": [str(report["subject"]["seeds"]) for report in reports],
        "answer": [_said(report["verdict"]) for report in reports],
    }
    width = max(32, *(len(text) for texts in facts.values() for text in texts)) + 2
    lines = [f"{name:27}" + "".join(f"{text:{width}}" for text in texts).rstrip() for name, texts in facts.items()]
    last = None
    for row in comparison["rivals"]:
        if row["kind"] != last:
            lines += ["", f"{row['kind']}, left unexplained"]
        last = row["kind"]
        cells = [
            _cell(left, row["learner"] in report["verdict"]["learners"])
            for left, report in zip(row["leaves"], reports, strict=True)
        ]
        lines.append(f"  {row['learner']:25}" + "".join(f"{cell:{width}}" for cell in cells).rstrip())
    return "\n".join([*lines, "", *_facts(comparison["shared"], reports)])


def _said(verdict: Mapping[str, Any]) -> str:
    return f"{verdict['outcome']}: {', '.join(verdict['learners'])}" if verdict["learners"] else verdict["outcome"]


def _cell(left: Mapping[str, float | None] | None, named: bool) -> str:
    if left is None:
        return "-"
    value, low, high = ("-" if left[end] is None else f"{left[end]:.2g}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})" + (" *" if named else "")


def _facts(facts: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["* named by its answer"]
    if not all(facts["kinds"]):
        silent = [place for place, kinds in zip(("first", "second"), facts["kinds"], strict=True) if not kinds]
        kinds = " and ".join(f"{name} ({kind_of(name)})" for name in facts["nearest"])
        lines.append(f"No learner is named for the {' and the '.join(silent)}. The nearest rivals are {kinds}.")
    elif facts["same_kind"] is None:
        lines.append("The answers name learners of none of the kinds above: compare them by name.")
    elif facts["same_kind"]:
        lines.append(f"Both answers are of one kind: {facts['kinds'][0][0]}.")
    else:
        first, second = (" or ".join(kinds) for kinds in facts["kinds"])
        lines.append(f"The answers are of different kinds: {first}, against {second}.")
    if facts["fit_both"]:
        lines.append(f"Rivals that fit both: {', '.join(facts['fit_both'])}.")
    if len({report["task"] for report in reports}) > 1:
        lines.append("The two were asked on different tasks: what differs may be theirs.")
    return lines


def card(networks: Sequence[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """Networks, each its folder and report, as the tables of their picture: rivals, a row per network and rival that
    was asked, and seeds, one for every seed of them."""
    tables, seeds = [], []
    told = rows([network["report"] for network in networks])
    for place, network in enumerate(networks):
        verdict, asked = network["report"]["verdict"], [row for row in told if row["leaves"][place]]
        names = [row["learner"] for row in asked]
        left = [[_float(seed["rivals"][name]["disagreement"]) for name in names] for seed in network["report"]["seeds"]]
        axes = {"seed": range(len(left)), "learner": names}
        seeds.append(tidy(left, axes, subject=network["folder"], metric="unexplained share").assign(place=place))
        ends = {end: [_float(row["leaves"][place][end]) for row in asked] for end in ("value", "low", "high")}
        tables.append(
            tidy(
                ends["value"],
                {"learner": names},
                low=ends["low"],
                high=ends["high"],
                subject=network["folder"],
                analysis="compare",
                metric="unexplained share",
                target=network["report"]["task"],
            ).assign(
                place=place,
                kind=[row["kind"] for row in asked],
                named=[row["learner"] in verdict["learners"] for row in asked],
                said=_said(verdict),
                fits_below=FITS,
            )
        )
    return {name: pd.concat(parts, ignore_index=True) for name, parts in (("rivals", tables), ("seeds", seeds))}


def _float(value: float | None) -> float:
    return math.nan if value is None else value
