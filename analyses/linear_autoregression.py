"""Which rule continues a linear sequence? Causal linear attention, trained as in arXiv 2402.05787, against the rules.

Five questions. With augmented tokens, is the trained layer one step of gradient descent, with the step size of least
expected loss (commuting W: sum n / sum (n^2 + (d-1) n))? Does that hold where the W do not commute? With plain tokens,
does diagonal unitary W lead to C = c I and P on the last state alone with c P_T = 1, and rotations to blocks of C and
P_{T-1} = -P_T / 2? And where only positions are trained, does a zero-loss function say what P is?

Constants are reported in the paper's units, in which the entries of states have modulus one; here they have norm one.
Plain networks see rotations in their eigenbasis in training, as the authors' do, and as real sequences afterwards,
which is the same to a C with blocks of equal entries, and to no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from algorithms.autoregressive import CopyLast, TwoToken
from algorithms.bank import bank_for
from algorithms.fit import disagreement, one_thread
from algorithms.gradient_descent import GD
from algorithms.learner import Learner
from algorithms.least_squares import OLS
from analyses.examine import ask, decide_round
from analyses.linear_positions import PUBLISHED_RANK, PUBLISHED_WEIGHT, positional_rows
from analyses.regression_configs import LinearAutoregression
from analyses.tables import select, tidy
from models.artifacts import run_folder
from models.causal import CausalTransformer
from models.causal_config import CausalConfig, CausalTraining
from models.causal_constructions import best_step_size, untwisted
from models.train_causal import CausalRecord, train_causal
from probes.behaviour import Subject as Examined
from probes.behaviour import median_interval
from probes.discrimination import PromptFamily, prompts_from
from probes.verdict import THRESHOLDS
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt

ANALYSIS = "linear-autoregression"
# The operators and first states of each subject's sequences.
SUBJECTS = {
    "augmented commuting": ("unitary", "ones"),
    "augmented haar": ("haar", "ones"),
    "augmented haar, random start": ("haar", "random"),
    "plain unitary": ("unitary", "ones"),
    "plain orthogonal": ("orthogonal", "ones"),
}
HEADS_MISSING = 2  # of plain orthogonal: with d heads the rule for unitary W would be an optimum too
SNAPSHOTS = 50
NEAR = 0.02  # of theory: what is counted as having reached it

VERDICT_SEQUENCES = 100
STEP_SEQUENCES = 4000

# c P_T and P_{T-1} / P_T of the authors' stored arrays.
PUBLISHED = {
    ("plain unitary", "c_p_last"): 1.202 * 0.832,
    ("plain orthogonal", "c_p_last"): 1.289 * 0.776,
    ("plain orthogonal", "p_query_over_p_last"): -0.388 / 0.776,
}


@dataclass(frozen=True)
class Subject:
    """A trained ensemble and the sequences it was trained on."""

    name: str
    family: AutoregressiveFamily
    record: CausalRecord
    config: CausalConfig
    training: CausalTraining

    @cached_property
    def model(self) -> CausalTransformer:
        return CausalTransformer(self.config, {name: w[-1].double() for name, w in self.record.weights.items()})

    def prompt(self, purpose: str, n: int) -> Prompt:
        """n held-out sequences that all seeds read."""
        return self.family.fresh_prompt([0], purpose, 0, n, self.training.context_length, self.family.layout)

    @cached_property
    def step_size(self) -> float:
        """Of the single step from W = 0 that predicts the held-out sequences best, in closed form where W commute."""
        if self.family.kind != "haar":
            return best_step_size(self.config.d_features, self.training.context_length - 1)
        prompt = self.prompt("step", STEP_SEQUENCES)
        step = GD(1, float(self.training.context_length)).predict(prompt)
        return float((step * prompt.answers).sum() / step.square().sum())

    @property
    def rivals(self) -> dict[str, Learner]:
        """Every rule with the constants that theory gives it: none is fitted to the network."""
        n, d = self.training.context_length, self.config.d_features
        rules: dict[str, Learner] = {"gd": GD(1, n * self.step_size), "ols": OLS(), "copy-last": CopyLast()}
        if self.family.kind == "haar":  # the two-token rule needs W that commute
            return rules
        return {**rules, "two-token": TwoToken(d / 2 if self.family.kind == "orthogonal" else float(d))}


@one_thread()
def run(config: LinearAutoregression) -> dict[str, pd.DataFrame]:
    """Tables training (loss), constants (what theory fixes, by seed), matrices (C and P entry by entry), predictions
    (disagreement with every rule at the constants of theory), verdicts (of the whole bank, with fitted constants),
    errors (by prefix) and positional (P by lag, and what null directions change)."""
    subjects = [trained(config, name) for name in SUBJECTS]
    return {
        "training": _concat(training_rows(subject) for subject in subjects),
        "constants": _concat(constant_rows(subject) for subject in subjects),
        "matrices": _concat(matrix_rows(subject) for subject in subjects if not subject.config.augmented),
        "predictions": _concat(prediction_rows(subject, config.test_sequences) for subject in subjects),
        "verdicts": _concat(verdict_rows(subject, config.fitting_sequences) for subject in subjects),
        "errors": _concat(error_rows(subject, config.test_sequences) for subject in subjects),
        "positional": _concat(positional_rows(ANALYSIS, scale, config.seeds) for scale in config.phase_scales),
    }


def trained(config: LinearAutoregression, name: str) -> Subject:
    """Trains one of SUBJECTS, or loads it where a complete run stands."""
    augmented, (kind, first) = name.startswith("augmented"), SUBJECTS[name]
    d = config.d_augmented if augmented else config.d_plain
    family = AutoregressiveFamily(d, kind, first=first, augmented=augmented)
    if augmented:
        network = CausalConfig(1, d)
        length, steps, rate = config.pairs + 1, config.augmented_steps, 0.01
    else:
        heads = d - HEADS_MISSING if kind == "orthogonal" else d
        network = CausalConfig(1, d, augmented=False, n_heads=heads, context_length=config.positions)
        length, steps, rate = config.positions, config.unitary_steps, 0.01
        if kind == "orthogonal":
            steps, rate = config.orthogonal_steps, config.orthogonal_learning_rate
    training = CausalTraining(length, steps, rate, config.prompts, max(1, steps // SNAPSHOTS))
    seeds = range(config.seeds)
    setting = {"model": network.to_json(), "training": asdict(training), "task": repr(family)}
    folder = run_folder(config.out, "subjects", setting, seeds)
    return Subject(name, family, train_causal(network, training, family, seeds, folder), network, training)


def training_rows(subject: Subject) -> pd.DataFrame:
    """E |prediction - s_{T+1}|^2 over prefixes, by seed and step."""
    record = subject.record
    axes = {"step": record.step[1:].tolist(), "seed": range(record.loss.shape[1])}
    return tidy(record.loss[1:], axes, analysis=ANALYSIS, subject=subject.name, metric="loss")


def constant_rows(subject: Subject) -> pd.DataFrame:
    """By seed, what theory fixes, in the paper's units; low and high are extremes over entries and prefixes.

    step: the coefficient of s_t s_{t-1}^H s_T, lag_over_step: that of s_t s_t^H s_{T-1} over it, twist: how many
    entries have the rarer sign of D (see `untwisted`);
    c_p_last: C_ii P_T, p_query_over_p_last: P_{T-1} / P_T, partner_over_own: C_ij / C_ii for the entries of a plane,
    stray: the norm of C and P off these entries over their norm. `expected` is what theory says, `published` what the
    authors' arrays hold.
    """
    measured = _augmented_constants(subject) if subject.config.augmented else _plain_constants(subject)
    tables = []
    for metric, (numbers, expected) in measured.items():
        flat = numbers.detach().flatten(1)
        table = tidy(
            flat.mean(-1),
            {"seed": range(len(flat))},
            low=flat.amin(-1),
            high=flat.amax(-1),
            analysis=ANALYSIS,
            subject=subject.name,
            metric=metric,
        )
        tables.append(table.assign(expected=expected, published=PUBLISHED.get((subject.name, metric), np.nan)))
    return pd.concat(tables, ignore_index=True)


def _augmented_constants(subject: Subject) -> dict[str, tuple[Tensor, float]]:
    layout, model, d = subject.model.layout, subject.model, subject.config.d_features
    blocks = (model.P, "output", "features"), (model.Q, "previous", "features"), (model.Q, "features", "previous")
    values, keys, lagged = (layout.block(*block)[:, 0, 0].diagonal(dim1=-2, dim2=-1) for block in blocks)
    negative = (values < 0).sum(-1, keepdim=True)
    twist = torch.minimum(negative, d - negative).double()
    return {
        "step": (values * keys / d, subject.step_size / d),
        "lag_over_step": (lagged / keys, 0.0),
        "twist": (twist, np.nan if subject.family.kind == "unitary" else 0.0),
    }


def _plain_constants(subject: Subject) -> dict[str, tuple[Tensor, float]]:
    d, rotations = subject.config.d_features, subject.family.kind == "orthogonal"
    C, P = subject.model.C, subject.model.P.tril()[:, 1:] / d
    own, last, query = C.diagonal(dim1=-2, dim2=-1), P.diagonal(1, dim1=-2, dim2=-1), P.diagonal(dim1=-2, dim2=-1)
    entry = torch.arange(d)
    partner = C[:, entry, entry ^ 1] if rotations else torch.zeros_like(own)
    explained_C = (own.square() + partner.square()).sum(-1)
    explained_P = (last.square() + (query.square() if rotations else 0.0)).sum(-1)
    totals = C.square().sum((-2, -1)), P.square().sum((-2, -1))
    stray = [
        (1 - part / total).clamp(min=0).sqrt() for part, total in zip((explained_C, explained_P), totals, strict=True)
    ]
    constants = {
        "c_p_last": (own[:, :, None] * last[:, None], 1.0),
        "p_query_over_p_last": (query / last, -0.5 if rotations else 0.0),
        "stray": (torch.stack(stray, -1), 0.0),
    }
    return {**constants, "partner_over_own": (partner / own, 1.0)} if rotations else constants


def matrix_rows(subject: Subject) -> pd.DataFrame:
    """C and, in the paper's units, P, entry by entry and seed by seed."""
    C, P = subject.model.C, subject.model.P.tril() / subject.config.d_features
    tables = []
    for metric, matrix in (("C", C), ("P", P)):
        axes = {name: range(size) for name, size in zip(("seed", "row", "column"), matrix.shape, strict=True)}
        tables.append(tidy(matrix.detach(), axes, analysis=ANALYSIS, subject=subject.name, metric=metric))
    return pd.concat(tables, ignore_index=True)


def networks(subject: Subject) -> dict[str, CausalTransformer]:
    """The trained network by name, and where W commute with every D the one without its twist too."""
    if subject.config.augmented and subject.family.kind == "unitary":
        return {subject.name: subject.model, f"{subject.name}, untwisted": untwisted(subject.model)}
    return {subject.name: subject.model}


@torch.no_grad()
def prediction_rows(subject: Subject, n: int) -> pd.DataFrame:
    """E |f - g|^2 / E |f|^2 of the network f and every rule g: medians over held-out sequences, by seed."""
    prompt = subject.prompt("test", n)
    tables = []
    for name, model in networks(subject).items():
        f = model.predict(prompt)
        for rival, learner in subject.rivals.items():
            by_task = disagreement(f, learner.predict(prompt), prompt).numpy()
            found = [median_interval(values) for values in by_task]
            table = tidy(
                [interval.value for interval in found],
                {"seed": range(len(found))},
                low=[interval.low for interval in found],
                high=[interval.high for interval in found],
                analysis=ANALYSIS,
                subject=name,
                learner=rival,
                metric="disagreement",
            )
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def verdict_rows(subject: Subject, fitting_sequences: int) -> pd.DataFrame:
    """The verdict on every seed (`probes.verdict`): value is what the nearest rival leaves unexplained."""
    family = PromptFamily("own prompts", subject.family, subject.training.context_length, 1.0)
    prompts = prompts_from(subject.family.layout)
    tables = []
    for name, model in networks(subject).items():
        bank = bank_for(model.layout).keys() - (set() if subject.family.kind != "haar" else {"two-token"})
        network = Examined.of(model)
        sizes = (fitting_sequences, VERDICT_SEQUENCES)
        asked = ask(network, family, prompts, sizes, rivals=bank)
        said = [decide_round(network, asked, member, THRESHOLDS) for member in asked.members]
        table = tidy(
            [verdict.noise for verdict in said],
            {"seed": asked.members},
            analysis=ANALYSIS,
            subject=name,
            metric="unexplained",
        )
        names = [", ".join(verdict.learners) for verdict in said]
        tables.append(table.assign(outcome=[verdict.outcome for verdict in said], learner=names))
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def error_rows(subject: Subject, n: int) -> pd.DataFrame:
    """E |prediction - s_{T+1}|^2 by the number of states T seen, of the network (by seed) and of every rule."""
    prompt = subject.prompt("test", n)
    predictions = {"network": subject.model.predict(prompt)}
    predictions |= {name: learner.predict(prompt) for name, learner in subject.rivals.items()}
    tables = []
    for name, f in predictions.items():
        error = (f - prompt.answers).abs().square().sum(-1).mean(1)
        axes = {"seed": range(len(error)), "states": range(1, error.shape[1] + 1)}
        tables.append(tidy(error, axes, analysis=ANALYSIS, subject=subject.name, learner=name, metric="error"))
    return pd.concat(tables, ignore_index=True)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The constants against theory and the authors' arrays, the distances to the rules, and what positions say."""
    lines = [f"{'median over seeds (range)':83}{'theory':>10}{'published':>11}{'within 2 %':>12}"]
    for (subject, metric), rows in tables["constants"].groupby(["subject", "metric"], sort=False):
        values = f"{rows.value.median():8.4f} ({rows.value.min():.4f} to {rows.value.max():.4f})"
        expected, published = rows.iloc[0][["expected", "published"]]
        known = "".join(f"{x:10.4f} " if np.isfinite(x) else " " * 11 for x in (expected, published))
        near = (rows.value - expected).abs() <= NEAR * (abs(expected) or 1.0)
        found = f"{near.sum():6}/{len(rows)}" if np.isfinite(expected) else ""
        lines.append(f"  {subject:28} {metric:20}{values:32}{known}{found}".rstrip())
    lines += ["", "disagreement with the rules, median over seeds of medians over sequences (seeds below .02)"]
    for subject, rows in tables["predictions"].groupby("subject", sort=False):
        numbers = [
            f"{rival} {mine.value.median():.4f} ({(mine.value < 0.02).sum()}/{len(mine)})"
            for rival, mine in rows.groupby("learner", sort=False)
        ]
        lines.append(f"  {subject:32} " + "  ".join(numbers))
    lines += ["", "verdicts by seed"]
    for subject, rows in tables["verdicts"].groupby("subject", sort=False):
        counts = (rows.outcome + " " + rows.learner).str.strip().value_counts()
        lines.append(f"  {subject:32} " + "; ".join(f"{n} {said}" for said, n in counts.items()))
    lines += [
        "",
        "positions alone: weight on s_T, s_{T-1} (published), rank (published), change of f when P moves by its length",
    ]
    positional = tables["positional"]
    for scale, rows in positional.groupby("phase_scale"):
        at = {lag: select(rows, metric="weight", lag=lag).value.mean() for lag in (0, 1)}
        mean = {name: mine.value.mean() for name, mine in rows.groupby("metric")}
        known = PUBLISHED_WEIGHT.get(float(scale), np.nan)
        lines.append(
            f"  scale {scale:5g}: {at[0]:.3f} {at[1]:.3f} ({known:.3f})  rank {mean['rank']:.0f} "
            f"({PUBLISHED_RANK.get(float(scale), 'none')})  null {mean['moved_null']:.1e}, any {mean['moved_any']:.1e}"
        )
    return "\n".join(lines)


def _concat(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(list(tables), ignore_index=True)
