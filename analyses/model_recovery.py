"""How often is the verdict wrong? The examination of networks whose algorithm is known (`analyses.planted`).

Three things are settled before a network is asked: which answers are right for it; whether it is *separable*, that is,
whether its learner lies far enough from all others for its noise, by their predictions alone; and the thresholds of the
rule, which are those that did best on all *other* kinds of network. So no kind is judged by thresholds that saw it.

An identification is wrong where it names a learner that is not right. Intervals are exact by network
(Clopper-Pearson); as networks of one kind err together, upper bounds also come from resampling whole kinds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from algorithms.bank import bank_for, richer
from algorithms.fit import fit_bank
from analyses.configs import ModelRecovery
from analyses.examine import Round, ask, decide_round, resolve
from analyses.labels import median_disagreement
from analyses.parallel import in_parallel
from analyses.planted import Planted, Population, plant
from analyses.planted_values import VALUE_ESTIMATORS
from analyses.tables import select, tidy
from models.linear import LinearTransformer
from probes import calibration
from probes.behaviour import Predictor, Subject
from probes.discrimination import PromptFamily, Prompts, candidates, prompts_from
from probes.example_weights import read_example_weights
from probes.verdict import FITS, FLOOR, MARGIN, THRESHOLDS, Thresholds, Verdict
from probes.weights import read_weights

ANALYSIS = "model-recovery"
# The defaults come first: of thresholds that do equally well, the earliest are taken. A margin below 4 would no longer
# say that the subject is nearer to the named learner, and what a richer learner has to remove is not calibrated.
GRID = tuple(Thresholds(fits=fits, margin=margin) for fits, margin in product((FITS, 0.01, 0.03), (MARGIN, 8.0)))
SEPARABLE = 8.0  # times the noise
N_RESAMPLES = 10_000
WISHED = ("separable identified",)  # rates whose lower end is the bound


@dataclass(frozen=True)
class First:
    """A first round of all members, and per member how far its learner is from the nearest that is not right."""

    round: Round
    gap: tuple[float, ...]


def run(config: ModelRecovery) -> dict[str, pd.DataFrame]:
    """The tables of `recover` for value estimators."""
    return recover(VALUE_ESTIMATORS, config, ANALYSIS)


def recover(population: Population, config: ModelRecovery, analysis: str) -> dict[str, pd.DataFrame]:
    """`networks`: a row each; `confusion`: answers by kind; `rates`; `confidence`; `thresholds`.

    All of these under the thresholds that were chosen without the kind. `shipped`: rates at the rule's own thresholds;
    `calibration`: what `probes.calibration` ships, the counts by cell of those answers.
    """
    planted = plant(population, config.split, config.preset, config.out / "planted")
    firsts = in_parallel(_first, [(p, config) for p in planted], "asking", "ensemble")
    kinds, score = [p.kind for p in planted], scores(planted, firsts)
    chosen = {kind: choose(score, kinds, without=kind) for kind in dict.fromkeys(kinds)}
    pairs = list(zip(planted, firsts, strict=True))
    left_out, shipped = (
        in_parallel(
            _resolved, [(p, first, rule(p), config) for p, first in pairs], f"asking again, {title}", "ensemble"
        )
        for title, rule in (("kind left out", lambda p: chosen[p.kind]), ("as shipped", lambda _: THRESHOLDS))
    )
    networks, as_shipped = (_networks(planted, firsts, verdicts) for verdicts in (left_out, shipped))
    sure = ~as_shipped.borderline.to_numpy(dtype=bool)
    kept = [verdict for verdict, known in zip(chain.from_iterable(shipped), sure, strict=True) if known]
    counts = calibration.count(kept, as_shipped.holds[sure].tolist())
    tables = {
        "networks": networks,
        "confusion": _confusion(networks, [*bank_for(population.layout), "ambiguous", "none"]),
        "rates": _rates(networks),
        "shipped": _rates(as_shipped),
        "confidence": _confidence(networks, list(chain.from_iterable(left_out))),
        "calibration": tidy(counts.right / counts.n, {"cell": range(len(counts))}).assign(
            **{name: counts[name].to_numpy() for name in calibration.COLUMNS}
        ),
        "thresholds": _thresholds(chosen | {"": choose(score, kinds)}),
    }
    return {name: table.assign(analysis=analysis).astype({"analysis": "string"}) for name, table in tables.items()}


def judge(verdict: Verdict, right: Collection[str], borderline: bool) -> str:
    """right, wrong (a learner is named that is not right), missed (`none` where a learner was right), or ambiguous."""
    if verdict.outcome == "ambiguous":
        return "ambiguous"
    if verdict.outcome == "none":
        return "right" if borderline or not right else "missed"
    return "right" if set(verdict.learners) <= set(right) else "wrong"


def scores(planted: Sequence[Planted], firsts: Sequence[First]) -> Int[np.ndarray, "thresholds ensembles 2"]:
    """How many first answers say something false (wrong or missed), and how many are right, under each of GRID."""
    score = np.zeros((len(GRID), len(planted), 2), dtype=int)
    for (i, thresholds), (j, (p, first)) in product(enumerate(GRID), enumerate(zip(planted, firsts, strict=True))):
        for member, (right, borderline) in enumerate(zip(p.right, p.borderline, strict=True)):
            found = judge(decide_round(subject_of(p), first.round, member, thresholds), right, borderline)
            score[i, j] += (found in ("wrong", "missed"), found == "right")
    return score


def choose(score: Int[np.ndarray, "thresholds ensembles 2"], kinds: Sequence[str], without: str = "") -> Thresholds:
    """The thresholds with the fewest false answers on all kinds but one, then the most right ones, then the first."""
    counted = np.array([kind != without for kind in kinds])
    false, right = score[:, counted].sum(1).T
    return GRID[min(range(len(GRID)), key=lambda i: (false[i], -right[i]))]


def subject_of(planted: Planted) -> Subject:
    return Subject(planted.subject, len(planted.right), planted.layout, planted.n_steps, planted.looped, gamma=0.9)


def questions(planted: Planted) -> tuple[tuple[PromptFamily, ...], Prompts]:
    """The families of prompts, the population's own first, and what makes them; no loops where they cannot be added."""
    layout, looped = planted.layout, subject_of(planted).can_loop
    families = candidates(planted.source, layout, looped=looped, context_length=planted.context_length)
    return families, prompts_from(layout)


def _first(planted: Planted, config: ModelRecovery) -> First:
    families, prompts = questions(planted)
    gap = _gap(planted, prompts, families[0], config)
    rivals, sizes = bank_for(planted.layout).keys(), (config.fitting_tasks, config.held_out_tasks)
    return First(ask(subject_of(planted), families[0], prompts, sizes, _starts(planted.subject), rivals), gap)


def _starts(network: Predictor) -> dict[str, dict[str, Tensor]] | None:
    """What the weights of linear attention encode; None where there are none."""
    if not isinstance(network, LinearTransformer) or network.config.activation != "linear":
        return None
    return (read_example_weights(network) if "label" in network.layout else read_weights(network)).starts()


@torch.no_grad()
def _gap(planted: Planted, prompts: Prompts, own: PromptFamily, config: ModelRecovery) -> tuple[float, ...]:
    """What the best rival that is not right, fitted to the planted *learner*, leaves of it; NaN where there is none.

    Learners that contain a right one leave nothing of it, and are no rivals.
    """
    if planted.learner is None:
        return (float("nan"),) * len(planted.right)
    sizes = (config.fitting_tasks // 2, config.held_out_tasks // 2)
    fitting, checking = (prompts(own, f"separable/{p}", n) for p, n in zip(("fit", "check"), sizes, strict=True))
    truth = planted.learner.predict(checking)
    depth = {"n_steps": planted.n_steps, "shared": planted.looped}
    fits = fit_bank(planted.learner.predict(fitting), fitting, **depth, rivals=bank_for(planted.layout).keys())
    left = {name: median_disagreement(truth, fit.learner.predict(checking), checking) for name, fit in fits.items()}
    above = richer(planted.n_steps, planted.looped)
    near = [right.union(*(above[name] for name in right)) for right in planted.right]
    return tuple(
        min((values[i].item() for name, values in left.items() if name not in names), default=float("nan"))
        for i, names in enumerate(near)
    )


def _resolved(planted: Planted, first: First, thresholds: Thresholds, config: ModelRecovery) -> tuple[Verdict, ...]:
    families, prompts = questions(planted)
    subject, n_tasks = subject_of(planted), config.held_out_tasks
    return resolve(subject, first.round, families, prompts, n_tasks, thresholds).verdicts


def _networks(
    planted: Sequence[Planted], firsts: Sequence[First], verdicts: Sequence[Sequence[Verdict]]
) -> pd.DataFrame:
    """One row per network; value is its noise. `holds`: what the answer says is right, however little it says."""
    rows = []
    for p, first, found in zip(planted, firsts, verdicts, strict=True):
        for i, verdict in enumerate(found):
            judged, known = judge(verdict, p.right[i], p.borderline[i]), bool(p.right[i]) and not p.borderline[i]
            far = first.gap[i] >= SEPARABLE * max(p.noise[i], FLOOR)
            rows.append(
                {
                    "subject": p.kind,
                    "seed": i,
                    "layer": p.n_steps,
                    "target": p.variant[i],
                    "learner": ", ".join(verdict.learners),
                    "value": p.noise[i],
                    "outcome": verdict.outcome,
                    "answer": answer(verdict),
                    "judged": judged,
                    "strictly": judge(verdict, p.strict[i], p.borderline[i]),
                    "right": ", ".join(name for name in bank_for(p.layout) if name in p.right[i]) or "none",
                    "borderline": p.borderline[i],
                    "separable": known and far,
                    "gap": first.gap[i],
                    "left": verdict.noise,
                    "margin": verdict.margin,
                    "holds": judged == "right"
                    or (judged == "ambiguous" and (bool({*verdict.learners} & p.right[i]) or p.borderline[i])),
                    "looped": p.looped,
                }
            )
    frame = pd.DataFrame(rows)
    table = tidy(frame.value, {"network": range(len(frame))}, metric="noise")
    return table.assign(**{name: frame[name].to_numpy() for name in frame.columns})


def answer(verdict: Verdict) -> str:
    """Column of the confusion matrix: the named learner, the simplest where they are one function, or the outcome."""
    return verdict.learners[0] if verdict.outcome == "identified" else verdict.outcome


def _confusion(networks: pd.DataFrame, answers: Sequence[str]) -> pd.DataFrame:
    """Share of every answer by kind, with exact intervals; n is the number of networks of the kind."""
    rows = []
    for kind, group in networks.groupby("subject", sort=False):
        for name in answers:
            share = calibration.exact_share(int((group.answer == name).sum()), len(group))
            rows.append({"subject": kind, "learner": name, "n": len(group), **_ends(share)})
    return _tidied(rows, "share")


def _rates(networks: pd.DataFrame) -> pd.DataFrame:
    """The rates that the benchmark is about; `clustered` is the upper end of a bootstrap that resamples kinds."""
    decoys, separable = networks[networks.target == "decoy"], networks[networks.separable]
    shares: dict[str, tuple[pd.DataFrame, pd.Series]] = {
        "wrong": (networks, networks.judged == "wrong"),
        "wrong by the strict rules": (networks, networks.strictly == "wrong"),
        "ambiguous": (networks, networks.judged == "ambiguous"),
        "missed": (networks, networks.judged == "missed"),
        "borderline": (networks, networks.borderline.astype(bool)),
        "separable identified": (separable, (separable.outcome == "identified") & (separable.judged == "right")),
        "decoys given a name": (decoys, decoys.outcome != "none"),
    }
    rows = []
    for name, (group, hit) in shares.items():
        share = calibration.exact_share(int(hit.sum()), len(group))
        bound = _clustered(group.subject, hit, 0.025 if name in WISHED else 0.975)
        rows.append({"target": name, "n": len(group), **_ends(share), "clustered": bound})
    return _tidied(rows, "rate")


def _clustered(kinds: pd.Series, hit: pd.Series, quantile: float = 0.975) -> float:
    """A quantile of the rate when kinds are drawn anew, all networks of a drawn kind with it.

    Where nothing was hit there is nothing to draw: then the exact upper bound on the share of kinds that have hits.
    """
    if not hit.any():
        none = calibration.exact_share(0, kinds.nunique())
        return float("nan") if none is None else none.high
    totals = hit.astype(float).groupby(kinds.to_numpy()).agg(["sum", "count"]).to_numpy()
    draws = np.random.default_rng(0).integers(len(totals), size=(N_RESAMPLES, len(totals)))
    sums = totals[draws].sum(1)
    return float(np.quantile(sums[:, 0] / sums[:, 1], quantile))


def _confidence(networks: pd.DataFrame, verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Reported confidence, from all other kinds, against how often such answers held, in classes of confidence."""
    reported = np.full(len(verdicts), np.nan)
    for kind in networks.subject.unique():
        others = ((networks.subject != kind) & ~networks.borderline).to_numpy(dtype=bool)
        held = networks.holds[others].tolist()
        counts = calibration.count([v for v, o in zip(verdicts, others, strict=True) if o], held)
        for i in np.flatnonzero((networks.subject == kind) & ~networks.borderline).tolist():
            said = calibration.confidence(verdicts[i], counts)
            reported[i] = np.nan if said is None else said.rate
    classes = pd.cut(reported, [0, 0.5, 0.8, 0.9, 0.99, 1], include_lowest=True)
    rows = []
    for interval, group in pd.DataFrame({"reported": reported, "holds": networks.holds}).groupby(
        classes, observed=True
    ):
        share = calibration.exact_share(int(group.holds.sum()), len(group))
        rows.append({"target": str(interval), "reported": group.reported.mean(), "n": len(group), **_ends(share)})
    return _tidied(rows, "held")


def _thresholds(chosen: Mapping[str, Thresholds]) -> pd.DataFrame:
    """What was chosen without each kind, and (kind left empty) with all of them."""
    rows = [
        {"subject": kind or "all", "metric": name, "value": value}
        for kind, thresholds in chosen.items()
        for name, value in vars(thresholds).items()
    ]
    return _tidied(rows)


def _ends(share: Any) -> dict[str, float]:
    if share is None:
        return {"value": np.nan, "low": np.nan, "high": np.nan}
    return {"value": share.rate, "low": share.low, "high": share.high}


def _tidied(rows: Sequence[Mapping[str, Any]], metric: str | None = None) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    table = tidy(frame.value, {"row": range(len(frame))})
    table = table.drop(columns="row").assign(**{name: frame[name].to_numpy() for name in frame.columns})
    return table if metric is None else table.assign(metric=metric)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The rates with their bounds, what went wrong, and the thresholds."""
    networks, lines = tables["networks"], []
    lines.append(
        f"{len(networks)} networks of {networks.subject.nunique()} kinds, {networks.separable.sum()} separable"
    )
    for row in tables["rates"].itertuples():
        lines.append(
            f"  {row.target:22}{row.value:7.1%}  ({row.low:.1%} to {row.high:.1%} of {row.n};"
            f" by kinds {'at least' if row.target in WISHED else 'at most'} {row.clustered:.1%})"
        )
    shipped = tables["shipped"].set_index("target").value
    said = ", ".join(f"{name} {shipped[name]:.1%}" for name in ("wrong", "ambiguous", "separable identified"))
    lines.append(f"  at the shipped thresholds: {said}")
    for row in select(networks, judged="wrong").itertuples():
        lines.append(f"  wrong: {row.subject}, {row.target}, {row.layer} layers: called {row.learner}, is {row.right}")
    unsure = networks[networks.separable & (networks.judged != "right")]
    for (kind, judged), count in unsure.groupby(["subject", "judged"]).size().items():
        lines.append(f"  separable, but {judged}: {count} {kind}")
    limits = tables["thresholds"].groupby("metric").value.agg(["min", "max"])
    said = ", ".join(f"{name} {row['min']:g} to {row['max']:g}" for name, row in limits.iterrows())
    return "\n".join([*lines, f"  thresholds, whichever kind is left out: {said}"])
