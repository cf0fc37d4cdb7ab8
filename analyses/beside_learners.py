"""One trained ensemble beside batch TD and beside every rival fitted to it: what several analyses tabulate alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from algorithms.bank import NO_BOOTSTRAP, RIVALS
from algorithms.fit import Fit, converges, fit_bank, square_mean
from algorithms.learner import Learner
from algorithms.softmax_td import SoftmaxTD
from algorithms.temporal_difference import TD0, transitions
from analyses.evidence import card
from analyses.inspect import report
from analyses.subjects import TrainedSubject, held_out_prompt
from analyses.tables import select, tidy
from probes.behaviour import (
    Comparison,
    compare,
    implicit_weight_similarity,
    predict,
    sensitivity_similarity,
    task_interval,
    value_difference,
)
from probes.lens import least_squares_weights, r_squared
from probes.verdict import FITS
from tasks.layout import Prompt

FITTING_TASKS, HELD_OUT_TASKS = 128, 200
BANK = (*RIVALS, "softmax-td")
# One value for all states of a context, a multiple of its mean reward. Rewards that do not average to zero give values
# that are mostly this constant, which no learner that is linear in the features has, and every softmax can write.
MEAN_REWARD = "mean-reward"
SIMILARITIES = ("iws", "ss", "vd")


def beside_learners(
    subject: TrainedSubject, labels: Mapping[str, str], rivals: Collection[str] = BANK
) -> dict[str, pd.DataFrame]:
    """Tables scores and rivals on held-out tasks; `labels` (analysis, subject) fill whole columns."""
    network, settings = subject.network(), subject.settings
    sizes = (FITTING_TASKS, HELD_OUT_TASKS)
    fitting, held_out = (held_out_prompt(settings, network, n, f"rivals/{n}") for n in sizes)
    with torch.no_grad():
        target, depth = predict(network, fitting), {"n_steps": settings.n_layers, "shared": settings.looped}
    fits = fit_bank(target, fitting, **depth, rivals=rivals)
    learners = {name: fit.learner for name, fit in fits.items()} | {MEAN_REWARD: mean_reward(target, fitting)}
    comparison = compare(network, learners, held_out)
    return {
        "scores": similarity(subject, learners, comparison, held_out, labels),
        "rivals": distances(subject, fits, comparison, labels),
    }


def evidence_tables(
    subject: TrainedSubject, labels: Mapping[str, str], rivals: Collection[str] = BANK
) -> dict[str, pd.DataFrame]:
    """Tables answers and findings of the evidence card, as `learnscope inspect` finds them; `labels` fill columns.

    network: the subject in words, as the card is headed.
    """
    settings = subject.settings
    told = report(
        subject.network(),
        settings.task,
        n_states=settings.n_states,
        context_length=settings.context_length,
        representable=settings.representable,
        fitting_tasks=FITTING_TASKS,
        held_out_tasks=HELD_OUT_TASKS,
        rivals=rivals,
    )
    return {
        name: table.assign(network=table["subject"], seed=table["seed"].map(dict(enumerate(subject.seeds))), **labels)
        for name, table in card(told).items()
    }


def mean_reward(predictions: Float[Tensor, "seeds tasks queries 1"], prompt: Prompt) -> SoftmaxTD:
    """The multiple of the mean reward that disagrees least with the predictions, by seed: a flat step of softmax TD."""
    weights = prompt.weights / prompt.weights.sum(-1, keepdim=True)
    mean = (weights * predictions[..., 0]).sum(-1)
    reward = transitions(prompt).reward.mean(-1)
    kept = converges(predictions, prompt)
    scale = torch.where(kept, 1 / square_mean(predictions, prompt), 0.0)
    mean = torch.where(kept, mean, 0.0)
    multiple = (scale * mean * reward).sum(-1) / (scale * reward.square()).sum(-1)
    return SoftmaxTD(1, multiple[:, None, None], 0.0, 0.0)


def constant_share(predictions: Float[Tensor, "seeds tasks queries 1"], prompt: Prompt) -> Float[Tensor, "seeds tasks"]:
    """(E f)^2 / E f^2 per task: how much of the predictions is one value for all states of the context."""
    weights = prompt.weights / prompt.weights.sum(-1, keepdim=True)
    return (weights * predictions[..., 0]).sum(-1).square() / square_mean(predictions, prompt)


def similarity(
    subject: TrainedSubject,
    learners: Mapping[str, Learner],
    comparison: Comparison,
    prompt: Prompt,
    labels: Mapping[str, str],
) -> pd.DataFrame:
    """iws, ss and vd against batch TD with the step size that was learned beside each seed, means over tasks.

    Tasks on which the network diverges are left out.

    For the network itself (learner "subject") also skill, r_squared (how nearly its values are linear in the query's
    features) and constant_share. Fitted rivals have iws, vd and skill, which say what those numbers are worth.
    """
    network, seeds = subject.network(), subject.seeds
    axes = {"seed": seeds}
    step_size = subject.record.step_size[-1, seeds, None, None].double()
    reference = TD0(subject.settings.n_layers, step_size, subject.settings.gamma)
    with torch.no_grad():
        values = predict(network, prompt)
        linear = r_squared(values, least_squares_weights(values, prompt), prompt)
        constant, kept = constant_share(values, prompt), converges(values, prompt)
    similar = sensitivity_similarity(network, reference, prompt)
    own = {"ss": similar, "r_squared": linear, "constant_share": constant}
    tables = [
        task_means(score.detach().numpy(), axes, learner="subject", metric=metric, **labels)
        for metric, score in own.items()
    ]
    for name, predictor in {"subject": network, **learners}.items():
        for metric, score in (("iws", implicit_weight_similarity), ("vd", value_difference)):
            found = torch.where(kept, score(predictor, reference, prompt), torch.nan)
            tables.append(task_means(found.detach().numpy(), axes, learner=name, metric=metric, **labels))
    for name, skill in {"subject": comparison.skill, **comparison.rival_skill}.items():
        tables.append(tidy(skill, axes, learner=name, metric="skill", **labels))
    return pd.concat(tables, ignore_index=True)


def distances(
    subject: TrainedSubject, fits: Mapping[str, Fit], comparison: Comparison, labels: Mapping[str, str]
) -> pd.DataFrame:
    """The disagreement with every rival, by seed (median over tasks) and over all of them (no seed); its constants."""
    axes, common = {"seed": subject.seeds}, {**labels, "fits_below": FITS}
    tables = []
    for name, values in comparison.disagreement.items():
        intervals = [task_interval(own[None].numpy()) for own in values]
        for seeds, found in ((subject.seeds, intervals), ([pd.NA], [task_interval(values.numpy())])):
            medians, low, high = ([getattr(i, end) for i in found] for end in ("value", "low", "high"))
            ends = {"low": low, "high": high}
            tables.append(tidy(medians, {"seed": seeds}, learner=name, metric="disagreement", **ends, **common))
        for key, value in fits[name].constants.items() if name in fits else ():
            if value[0].numel() == 1:
                numbers = value.reshape(len(subject.seeds))
                tables.append(tidy(numbers, axes, learner=name, metric="constant", target=key, **common))
    if comparison.seed_disagreement is not None:
        between = [comparison.seed_disagreement]
        tables.append(tidy(between, {"seed": [pd.NA]}, learner="subject", metric="disagreement", **common))
    return pd.concat(tables, ignore_index=True)


def describe(name: str, scores: pd.DataFrame, rivals: pd.DataFrame) -> list[str]:
    """Two lines on the subject of that name, medians over seeds."""
    found = select(scores, subject=name).groupby(["learner", "metric"])["value"].median()
    own = found["subject"]
    similar = ", ".join(f"{metric.upper()} {own[metric]:.3f}" for metric in SIMILARITIES)
    if "published" in found:
        theirs = found["published"]
        similar += f" (published {', '.join(f'{theirs[metric]:.3f}' for metric in SIMILARITIES)})"
    pooled = select(rivals, subject=name, metric="disagreement")
    pooled = pooled[pooled["seed"].isna()].set_index("learner")["value"]
    near = pooled.drop("subject", errors="ignore").sort_values()
    blind = near[near.index.isin(NO_BOOTSTRAP)]
    return [
        f"  {name}: skill over zero {own['skill']:.2f}; to batch TD {similar}; linear in the query R² "
        f"{own['r_squared']:.3f}; one value per context explains {own['constant_share']:.3f}",
        "    nearest rivals (disagreement): "
        + ", ".join(f"{rival} {value:.3f}" for rival, value in near.head(4).items())
        + f"; a multiple of the mean reward {near[MEAN_REWARD]:.3f}"
        + f"; nearest without bootstrapping: {blind.index[0]} {blind.iloc[0]:.3f}"
        + (f"; between seeds {pooled['subject']:.3f}" if "subject" in pooled else ""),
    ]


def task_means(
    values: Float[np.ndarray, "*axes tasks"], axes: Mapping[str, Sequence[Any]], **labels: str
) -> pd.DataFrame:
    """Rows of means over tasks, NaN left out, with their 95 % intervals."""
    mean, error = np.nanmean(values, -1), 1.96 * stats.sem(values, axis=-1, nan_policy="omit")
    return tidy(mean, axes, low=mean - error, high=mean + error, **labels)
