"""What `learnscope inspect` prints: rivals in a table, findings level by level, and a plain-language answer."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np

from algorithms.bank import NO_BOOTSTRAP
from analyses.evidence import MISSED, architecture
from probes.verdict import FITS, MOSTLY, Relations, without_bootstrap

MOST_SHOWN = 10  # numbers of one constant in the table
MOST_NEAREST = 3  # rivals told with a finding besides those that the answer names
ROUNDING = 1e-12  # and below it no digit says anything


def render(report: dict[str, Any]) -> str:
    """The report as a table of the evidence and a plain-language answer."""
    subject, verdict = report["subject"], report["verdict"]
    seeds = f"{subject['seeds']} seed{'s' if subject['seeds'] > 1 else ''}"
    lines = [
        f"Subject: {architecture(subject)}, d = {subject.get('d_features') or subject['d_model']}, {seeds}",
        f"Task:    {report['task']}, {subject['prompts']['held_out_tasks']} held-out tasks",
        _worth(subject),
    ]
    if report["weights"] is not None:
        names = ", ".join(report["weights"])
        lines.append(f"Weights: {names} per layer, median over seeds: " + _weights(report["weights"]))
    if report["seed_disagreement"] is not None:
        lines.append(f"Seeds:   they disagree with each other by {_number(report['seed_disagreement'])}")
    nearest = min(report["rivals"], key=lambda name: _or_infinity(report["rivals"][name]["disagreement"]))
    head = f"{'rival':22}{'disagreement':>14}  {'95 % interval':20}{'from ' + nearest:>24}{'free':>6}  constants"
    lines += ["", head]
    for name, rival in sorted(report["rivals"].items(), key=lambda item: _or_infinity(item[1]["disagreement"])):
        mark = "*" if name in verdict["learners"] else " "
        interval = f"{_number(rival['low'])} to {_number(rival['high'])}"
        gap = "" if name == nearest else _number(report["rival_distances"][nearest][name])
        value, constants = _number(rival["disagreement"]), _constants(rival["constants"])
        free = rival["n_constants"]
        lines.append(f"{mark} {name:20}{value:>14}  {interval:20}{gap:>24}{free:>6}  {constants}".rstrip())
    return "\n".join([*lines, "", *_answer(report), *_levels(report)])


def _worth(subject: dict[str, Any]) -> str:
    """What there is to explain: skill of predictions, or what laws of actions take from their context."""
    if "information" in subject:
        return f"Laws:    the context decides {_number(_median(subject['information']))} nats of an action"
    share = statistics.fmean(subject["diverged"])
    return f"Skill:   over predicting zero {_number(_median(subject['skill']))}; {share:.1%} of the tasks diverge"


def _levels(report: dict[str, Any]) -> list[str]:
    """Every finding on a network of one seed: the rivals that it speaks for most, and those that it speaks against."""
    seeds = report["seeds"]
    if len(seeds) > 1:
        drawn = "" if "information" in report["subject"] else ", --card draws it"
        return [f"  The evidence differs by seed: --json lists it{drawn}."]
    lines, named = [""], seeds[0]["learners"]
    for level, findings in groupby(seeds[0]["findings"], key=lambda finding: finding["level"]):
        lines.append(f"{level} evidence")
        missed = {}
        for finding in findings:
            if finding["statistic"] == MISSED:
                missed[finding["test"]] = finding["seen"]
        for finding in seeds[0]["findings"]:
            if finding["level"] == level and finding["statistic"] != MISSED:
                lines += _finding(finding, missed.get(finding["test"], finding["seen"]), named)
    return lines


def _finding(finding: dict[str, Any], missed: dict[str, dict[str, float | None]], named: list[str]) -> list[str]:
    """A finding in two lines: the rivals that the answer names, and those that leave the least unexplained."""
    if not finding["seen"]:
        return [f"  {finding['test']}: does not apply, {finding['note']}"]
    order = sorted(missed, key=lambda name: _or_infinity(missed[name]["value"]))
    nearest = [name for name in order if name not in finding["excluded"]][:MOST_NEAREST]
    first = [name for name in order if name in named or name in nearest] or order[:1]
    near = "; ".join(f"{name} {_interval(finding['seen'][name])}" for name in first)
    lines = [f"  {finding['test']}, {finding['statistic']} ({finding['expected']:g} if right): {near}"]
    if finding["excluded"]:
        lines.append(f"    against {', '.join(finding['excluded'])}")
    if finding["level"] == "parametric":
        lines.append(f"    {finding['note']}")
    return lines


def _interval(interval: dict[str, float | None]) -> str:
    if interval["low"] == interval["high"]:
        return _number(interval["value"])
    return f"{_number(interval['value'])} ({_number(interval['low'])} to {_number(interval['high'])})"


def _answer(report: dict[str, Any]) -> list[str]:
    verdict, rivals, seeds = report["verdict"], report["rivals"], report["seeds"]
    named = verdict["learners"]
    counts = Counter((seed["outcome"], ", ".join(seed["learners"])) for seed in seeds)
    lines = [f"Answer: {verdict['outcome']}" + (f": {', '.join(named)}" if named else "")]
    if len(counts) > 1:
        lines += [
            f"  {n} of {len(seeds)} seeds: {outcome} {names}".rstrip() for (outcome, names), n in counts.most_common()
        ]
    elif verdict["outcome"] == "none" and statistics.fmean(report["subject"]["diverged"]) > MOSTLY:
        lines.append("  The network diverges on most of the tasks: there are no predictions to compare.")
    elif verdict["outcome"] == "none":
        nearest = min(rivals, key=lambda name: _or_infinity(rivals[name]["disagreement"]))
        lines.append(
            f"  No rival fits, that is, leaves less than {FITS} of what it says unexplained. "
            f"The nearest, {nearest}, leaves {_number(rivals[nearest]['disagreement'])}."
        )
    else:
        best = min(named, key=lambda name: _or_infinity(rivals[name]["disagreement"]))
        gaps = report["rival_distances"][best]
        above_all = _relations(report["subject"]).above
        above = above_all[best]
        compared = [name for name in rivals if name not in named and rivals[name]["disagreement"] is not None]
        diverging = [name for name in rivals if name not in named and rivals[name]["diverged"] > MOSTLY]
        contained = [name for name in compared if name in above and name not in diverging]
        excluded = [name for name in compared if name not in above and name not in diverging]
        if len(seeds) == 1:  # those that later rounds exclude are listed with them
            excluded = [name for name in excluded if name in seeds[0]["findings"][0]["excluded"]]
        if verdict["outcome"] == "ambiguous":
            stopped = [name for name in named if best in above_all[name] and rivals[name]["at_bound"]]
            near = [name for name in named if name != best and name not in stopped]
            lines.append(f"  {best} comes nearest and leaves {_number(rivals[best]['disagreement'])} unexplained.")
            if near:
                gap = ", ".join(f"{name} ({_number(gaps[name])} away)" for name in near)
                lines.append(f"  On these prompts that is too much to tell it from {gap}.")
            for name in stopped:
                fitted = " and ".join(rivals[name]["at_bound"])
                lines.append(f"  The fitted {fitted} of {name} stopped at a bound; it might fit beyond.")
        elif len(named) > 1:
            lines.append("  At one step these learners are one function: no prompt can tell them apart.")
        shares = ", ".join(f"{name} {_number(rivals[name]['disagreement'])}" for name in excluded)
        if excluded:
            lines.append(f"  Excluded, by what they leave unexplained: {shares}.")
        if contained:
            lines.append(f"  Richer learners that contain {best} and explain no more: {', '.join(contained)}.")
        if diverging:
            lines.append(f"  Set aside, since they diverge on most of the tasks: {', '.join(diverging)}.")
    return [
        *lines,
        *_asked_again(seeds),
        *_against(seeds),
        *_bootstraps(report),
        *(_confidence(verdict) if len(seeds) == 1 else []),
    ]


def _relations(subject: dict[str, Any]) -> Relations:
    """Which rivals contain which: those that act, or those that predict at this depth."""
    acts = "n_actions" in subject
    return Relations.of_laws() if acts else Relations.of_values(subject["n_layers"], subject.get("looped", False))


def _against(seeds: list[dict[str, Any]]) -> list[str]:
    """Of several learners that behaviour leaves, how many of the other tests speak against each."""
    if len(seeds) > 1 or seeds[0]["outcome"] != "ambiguous":
        return []
    tests = [
        finding
        for finding in seeds[0]["findings"]
        if finding["level"] in ("representational", "causal")
        and finding["statistic"] != MISSED
        and not finding["test"].startswith("random")
    ]
    counts = {}
    for name in seeds[0]["learners"]:
        made = [finding for finding in tests if name in finding["seen"]]
        counts[name] = f"{name} {sum(name in finding['excluded'] for finding in made)} of {len(made)}"
    return [f"  Tests of layers, and by editing, that speak against them: {', '.join(counts.values())}."]


def _asked_again(seeds: list[dict[str, Any]]) -> list[str]:
    """The prompts on which the rivals that were left differ most, and what they leave unexplained there."""
    lines = []
    for again in seeds[0]["prompts"][1:] if len(seeds) == 1 else []:
        order = sorted(again["rivals"].items(), key=lambda item: _or_infinity(item[1]["disagreement"]))
        left = ", ".join(f"{name} {_number(rival['disagreement'])}" for name, rival in order)
        lines.append(f"  Asked on {again['family']['name']}, where these differ, with the same constants: {left}.")
    return lines


def _confidence(verdict: dict[str, Any]) -> list[str]:
    """How often such an answer was right on the planted benchmark."""
    said = verdict["confidence"]
    if said is None:
        return ["  Confidence: not counted for such an answer, or for this kind of network, task or prompt."]
    right = round(said["rate"] * said["n"])
    return [
        f"  Confidence: of {said['n']} planted networks with such an answer (outcome, noise, margin) it was right for "
        f"{right}: {said['rate']:.0%} ({said['low']:.0%} to {said['high']:.0%})."
    ]


def _bootstraps(report: dict[str, Any]) -> list[str]:
    """What the answer says about bootstrapping, which the names alone may hide."""
    if not ({*report["rivals"]} - {"zero"}) & {*NO_BOOTSTRAP}:
        return []
    n_steps, lines, without = report["subject"]["n_layers"], [], Counter()
    every = 0  # seeds in which all named learners bootstrap
    for seed in report["seeds"]:
        gammas = {name: _or_infinity(rival["constants"].get("gamma")) for name, rival in seed["rivals"].items()}
        blind = without_bootstrap(seed["learners"], gammas if n_steps > 1 else {})  # one step has no use for gamma
        without.update(blind)
        every += bool(seed["learners"]) and not {*seed["learners"]} & {*NO_BOOTSTRAP, *blind} and n_steps > 1
    n_seeds = len(report["seeds"])

    def where(count: int) -> str:
        return f", in {count} of {n_seeds} seeds" if count < n_seeds else ""

    for name, count in without.items():
        lines.append(f"  The fitted gamma of {name} is 0, so it does not bootstrap{where(count)}.")
    if every and report["verdict"]["outcome"] == "ambiguous":
        names = ", ".join(NO_BOOTSTRAP)
        lines.append(f"  Every learner that does not bootstrap ({names}) is excluded{where(every)}.")
    return lines


def _weights(weights: dict[str, Any]) -> str:
    layers = zip(*(zip(*seeds, strict=True) for seeds in weights.values()), strict=True)
    return ", ".join(" ".join(_number(_median(values)) for values in constants) for constants in layers)


def _constants(constants: dict[str, Any]) -> str:
    shown = []
    for name, value in constants.items():
        if value is None:
            shown.append(f"{name} [one per seed]")
            continue
        numbers = np.array(value, dtype=float).ravel().tolist()
        listed = " ".join(map(_number, numbers)) if len(numbers) <= MOST_SHOWN else f"[{len(numbers)} numbers]"
        shown.append(f"{name} {listed}")
    return ", ".join(shown)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return "0" if abs(value) < ROUNDING else f"{value:.2g}"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
