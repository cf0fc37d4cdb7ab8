"""Why do the weights of a trained network read as TD with a small discount? What it computes, and why it pays.

The weights of a network trained at gamma = .9 read as TD with a discount near .7; TD(0) fitted to its predictions wants
.9 to 1. Three measurements settle who is right, on a baseline and on one-at-a-time variations of it:

constants  of the weights; of learners fitted to the predictions; and of the learner that the *objective itself* leads
           to, the fixed point of expected multi-task TD over the constants of TD(0) or of TD++;
lesion     without the rows of P that rewrite the features between layers, the network should be the TD(0) that its
           weights spell out. Control: noise of the same norm in the same rows;
skill      what the lesion costs, and what the TD(0) of the weights predicts that it costs.

TD++ is batch TD(0) with the same discount whose steps are preconditioned in context: a layer takes every
u_j = gamma phi'_j - phi_j to (I + gamma K) u_j, so that w_{l+1} = w_l + alpha M_l^T E[phi delta(w_l)] where
M_{l+1} = (I + gamma K_l) M_l and M_0 = I. What is settled is therefore which TD: discount, step size, preconditioner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from algorithms.fit import Fit, fit_bank
from algorithms.learner import Learner
from algorithms.td_plus_plus import TDPlusPlus
from algorithms.temporal_difference import TD0, transitions
from analyses.configs import EffectiveDiscount
from analyses.optimum import SAMPLES, STARTS, optimum
from analyses.subjects import TrainedSubject, held_out_prompt, subject_settings, train_all, varied
from analyses.tables import tidy
from analyses.td_emergence import EMERGENCE_LEVEL
from models.config import ConfigError
from models.linear import LinearTransformer
from probes.behaviour import compare, predict, task_interval
from probes.verdict import FITS, REMOVED
from probes.weights import read_weights
from tasks.layout import Prompt
from tasks.streams import normals

ANALYSIS = "effective-discount"
BASELINE = "baseline"
FITTING_TASKS, HELD_OUT_TASKS = 128, 200
RIVALS = ("myopic", "td0", "td-lambda", "td-plus-plus", "preconditioned-td")
RIVALS_OF_LESIONS = ("myopic", "td0", "td-plus-plus")
CONSTANTS = {"step_size": "alpha", "gamma": "gamma", "from_features": "from_features", "from_next": "from_next"}
# A seed bootstraps when its weights say so at the level of td-emergence and bootstrapping halves what is unexplained.
BOOTSTRAP_REMOVES = 0.5
# The columns of the summary: condition, source and learner.
SUMMARISED = {
    "intact weights td0": "weights",
    "intact predictions td0": "TD(0) fit",
    "intact predictions td-plus-plus": "TD++ fit",
    "lesion predictions td0": "TD(0), lesion",
    "intact objective td0": "TD(0) optimum",
    "intact objective td-plus-plus": "TD++ optimum",
}


def run(config: EffectiveDiscount) -> dict[str, pd.DataFrame]:
    """Tables constants, conditions, seeds, training and discounts (means over bootstrapping seeds)."""
    if config.activation != "linear" or config.task == "cartpole":
        raise ConfigError(
            f"effective-discount reads linear attention on Markov reward processes; {config.activation!r} on "
            f"{config.task!r} has no effective discount. Allowed: linear on boyan-chain, loop or random"
        )
    baseline = subject_settings(config)
    settings = {BASELINE: baseline, **{change: varied(baseline, change) for change in config.variations}}
    parts: dict[str, list[pd.DataFrame]] = {"constants": [], "conditions": [], "seeds": [], "training": []}
    for name, subject in zip(settings, train_all(list(settings.values())), strict=True):
        only_longer = replace(subject.settings, train_tasks=baseline.train_tasks) == baseline
        measured = examine(subject) | ({"training": over_training(subject)} if only_longer else {})
        for table, rows in measured.items():
            parts[table].append(rows.assign(analysis=ANALYSIS, subject=name, gamma=subject.settings.gamma))
    tables = {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}
    return {**tables, "discounts": discounts(tables["constants"], tables["seeds"])}


def examine(subject: TrainedSubject) -> dict[str, pd.DataFrame]:
    """All that is measured on one trained ensemble."""
    settings, model = subject.settings, subject.model()
    fitting, held_out = (
        held_out_prompt(settings, model, n, f"{ANALYSIS}/{n}") for n in (FITTING_TASKS, HELD_OUT_TASKS)
    )
    td, plus = weights_learners(model)
    spelled = {"td0": td, "td-plus-plus": plus}
    constants = [_constants(subject, learner, name, "weights", "intact") for name, learner in spelled.items()]
    conditions, bootstraps = [], torch.zeros(len(subject.seeds), dtype=torch.bool)
    for condition, network in lesions(model).items():
        fits = fit(network, fitting, RIVALS if condition == "intact" else RIVALS_OF_LESIONS)
        found = _compare(subject, network, model, spelled, fits, held_out)
        conditions.append(found.assign(condition=condition))
        constants += [_constants(subject, f.learner, name, "predictions", condition) for name, f in fits.items()]
        if condition == "intact":
            strength = (torch.as_tensor(td.step_size)[:, 0] * torch.as_tensor(td.gamma)).amax(-1)
            left = found[(found["metric"] == "disagreement") & (found["source"] == "predictions")]
            left = left.pivot_table("value", "seed", "learner").loc[subject.seeds]
            halved = left["td-plus-plus"] < BOOTSTRAP_REMOVES * left["myopic"]
            bootstraps = (strength > EMERGENCE_LEVEL) & torch.tensor(halved.to_numpy())
    constants += [
        _tidy(optimum(settings, name), range(SAMPLES), learner=name, source="objective", condition="intact")
        for name in STARTS
    ]
    seeds = {"bootstraps": bootstraps, "unstable": unstable_tasks(td, held_out)}
    return {
        "constants": pd.concat(constants, ignore_index=True),
        "conditions": pd.concat(conditions, ignore_index=True),
        "seeds": _tidy(seeds, subject.seeds),
    }


def lesions(model: LinearTransformer) -> dict[str, LinearTransformer]:
    """The network intact, without the rows of P that rewrite features, and with noise of their norm added to them."""
    P, Q = model.P.detach(), model.Q.detach()
    rows = P.clone()
    rows[..., model.layout["reward"], :] = 0.0
    noise = normals(range(model.n_seeds), f"{ANALYSIS}/noise", 0, *P.shape[1:]).to(P) * (rows != 0)
    noise = noise * (rows.norm(dim=(-2, -1), keepdim=True) / noise.norm(dim=(-2, -1), keepdim=True))
    changed = {"intact": P, "lesion": P - rows, "noise": P + noise}
    return {name: LinearTransformer(model.config, weights, Q) for name, weights in changed.items()}


def weights_learners(model: LinearTransformer) -> tuple[TD0, TDPlusPlus]:
    """TD(0) and TD++ with the constants that the weights spell out, every layer its own.

    The discount of several layers is their mean weighted by alpha, without the last: there the block that holds it acts
    on nothing but what was rewritten in the query.
    """
    read = read_weights(model).constructions["td-plus-plus"].constants
    alpha, gamma = read["alpha"], read["gamma"]
    bootstrapping = slice(None) if alpha.shape[1] == 1 else slice(-1)
    weight = alpha[:, bootstrapping].clamp(min=0)
    mean = (weight * gamma[:, bootstrapping].nan_to_num()).sum(1) / weight.sum(1).clamp(min=torch.finfo().tiny)
    common = model.config.n_layers, alpha[:, None], mean[:, None]
    rewriting = (read[name].nan_to_num()[:, None] for name in ("from_features", "from_next"))
    return TD0(*common), TDPlusPlus(*common, *rewriting)


@torch.no_grad()
def fit(network: LinearTransformer, prompt: Prompt, rivals: Sequence[str]) -> dict[str, Fit]:
    """The rivals fitted to the network's predictions alone."""
    config = network.config
    return fit_bank(predict(network, prompt), prompt, n_steps=config.n_layers, shared=config.looped, rivals=rivals)


def _compare(
    subject: TrainedSubject,
    network: LinearTransformer,
    intact: LinearTransformer,
    spelled: Mapping[str, Learner],
    fits: Mapping[str, Fit],
    prompt: Prompt,
) -> pd.DataFrame:
    """Held-out disagreement with the network and skill, of what its weights spell out and of what was fitted."""
    axes, tables = {"seed": subject.seeds}, []
    learners = {"weights": spelled, "predictions": {name: f.learner for name, f in fits.items()}}
    for source, bank in learners.items():
        comparison = compare(network, bank, prompt)
        for name, values in comparison.disagreement.items():
            found = [task_interval(values[i : i + 1].numpy()) for i in range(len(values))]
            ends = {end: [getattr(interval, end) for interval in found] for end in ("low", "high")}
            labels = {"learner": name, "source": source}
            medians = [interval.value for interval in found]
            tables.append(tidy(medians, axes, metric="disagreement", **ends, **labels))
            tables.append(tidy(comparison.rival_skill[name], axes, metric="skill", **labels))
        if source == "weights":
            tables.append(tidy(comparison.skill, axes, metric="skill", learner="subject"))
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def unstable_tasks(learner: TD0, prompt: Prompt) -> Float[Tensor, " seeds"]:
    """The share of tasks on which TD(0) of these constants grows without bound: spectral radius of I - alpha A > 1."""
    matrix, _ = learner.moments(transitions(prompt))
    alpha = torch.as_tensor(learner.step_size).amax(-1)[..., None, None]
    step = torch.eye(matrix.shape[-1], dtype=matrix.dtype) - alpha * matrix
    return (torch.linalg.eigvals(step).abs().amax(-1) > 1).double().mean(-1)


def over_training(subject: TrainedSubject) -> pd.DataFrame:
    """The discount of the weights and of fitted TD(0) and TD++, at tasks seen that double up to the end."""
    counts, tables, axes = subject.record.task_count.tolist(), [], {"seed": subject.seeds}
    fitting = held_out_prompt(subject.settings, subject.model(), FITTING_TASKS, f"{ANALYSIS}/{FITTING_TASKS}")
    for when in (i for i, count in enumerate(counts) if count in {counts[-1] // 2**k for k in range(5)} - {0}):
        network = subject.model(when)
        fits = fit(network, fitting, RIVALS_OF_LESIONS)
        gammas = {("weights", "td0"): weights_learners(network)[0].gamma}
        gammas |= {("predictions", name): fits[name].constants["gamma"] for name in ("td0", "td-plus-plus")}
        for (source, name), gamma in gammas.items():
            labels = {"learner": name, "source": source, "metric": "gamma", "task_count": counts[when]}
            tables.append(tidy(torch.as_tensor(gamma)[:, 0], axes, **labels))
    return pd.concat(tables, ignore_index=True)


def _constants(subject: TrainedSubject, learner: Learner, name: str, source: str, condition: str) -> pd.DataFrame:
    """The named constants of a learner by seed, means over its steps."""
    read = {label: getattr(learner, key) for key, label in CONSTANTS.items() if hasattr(learner, key)}
    means = {label: torch.as_tensor(value).flatten(1).mean(1) for label, value in read.items()}
    return _tidy(means, subject.seeds, learner=name, source=source, condition=condition)


def _tidy(values: Mapping[str, Tensor], seeds: Sequence[int], **labels: str) -> pd.DataFrame:
    tables = [tidy(value, {"seed": list(seeds)}, metric=metric, **labels) for metric, value in values.items()]
    return pd.concat(tables, ignore_index=True)


def discounts(constants: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval (Student's t) over seeds that bootstrap, of objectives over samples, per constant."""
    bootstraps = seeds[(seeds["metric"] == "bootstraps") & (seeds["value"] == 1)]
    known = pd.MultiIndex.from_frame(bootstraps[["subject", "seed"]])
    counted = pd.MultiIndex.from_frame(constants[["subject", "seed"]]).isin(known)
    kept = constants[(counted | (constants["source"] == "objective")) & constants["value"].notna()]
    keys = ["subject", "gamma", "condition", "source", "learner", "metric"]
    found = kept.groupby(keys, sort=False)["value"].agg(["mean", "sem", "size"]).reset_index()
    half = found["sem"] * stats.t.ppf(0.975, found["size"] - 1)  # NaN for one seed
    ends = {"low": found["mean"] - half, "high": found["mean"] + half}
    table = tidy(found["mean"], {"seed": [pd.NA] * len(found)}, analysis=ANALYSIS, **ends)
    return table.assign(**found[keys], n_seeds=found["size"])


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """What algorithm the trained network is, and what every variation says about its discount."""
    table = tables["discounts"]
    rows = table[table["metric"] == "gamma"]
    gammas = rows.assign(key=table["condition"] + " " + table["source"] + " " + table["learner"])
    gammas = gammas.pivot_table("value", "subject", "key", sort=False)
    share = (
        tables["seeds"][tables["seeds"]["metric"] == "bootstraps"]
        .groupby("subject", sort=False)["value"]
        .agg(["sum", "size"])
    )
    lines = [
        "discount by estimator, mean over the seeds that bootstrap (of the objectives: over sets of tasks)",
        f"  {'':24}{'seeds':>7}" + "".join(f"{title:>14}" for title in SUMMARISED.values()),
    ]
    for subject, (count, n) in share.iterrows():
        row = gammas.loc[subject] if subject in gammas.index else pd.Series(dtype=float)
        numbers = "".join(f"{row.get(key, np.nan):14.2f}" for key in SUMMARISED)
        lines.append(f"  {subject:24}{f'{count:.0f}/{n:.0f}':>7}{numbers}")
    return "\n".join([*lines, *_answer(tables)])


def _answer(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The baseline in words."""
    seeds, conditions = (tables[name][tables[name]["subject"] == BASELINE] for name in ("seeds", "conditions"))
    flags = seeds.pivot_table("value", "seed", "metric")
    bootstrapping = flags.index[flags["bootstraps"] == 1]
    if not len(bootstrapping):
        return ["  No seed of the baseline bootstraps: these networks have no discount to speak of."]
    rows = conditions[conditions["seed"].isin(bootstrapping)].fillna({"source": "network"})
    median = rows.groupby(["condition", "metric", "source", "learner"])["value"].median()
    intact, lesion, noise = (median[name] for name in ("intact", "lesion", "noise"))
    plus, plain = (intact["disagreement", "predictions", name] for name in ("td-plus-plus", "td0"))
    left, without, noisy = (rows["disagreement", "weights", "td0"] for rows in (intact, lesion, noise))
    rewrites = plus < FITS and plus <= (1 - REMOVED) * plain
    undone = without < min(FITS, left, noisy)
    unstable = flags["unstable"][bootstrapping].median()
    return [
        f"  The network {'is' if rewrites else 'is not shown to be'} TD++, TD preconditioned in context: fitted to its "
        f"predictions, TD++ leaves {plus:.3f} unexplained, TD(0) {plain:.3f}.",
        f"  Without the rewriting rows of P it {'is' if undone else 'is not'} the TD(0) that its weights spell out, "
        f"which leaves {without:.3f} ({left:.3f} intact, {noisy:.3f} with noise of the same norm).",
        f"  Skill: {intact['skill', 'network', 'subject']:.3f} intact, {lesion['skill', 'network', 'subject']:.3f} "
        f"without those rows, {intact['skill', 'weights', 'td0']:.3f} for the TD(0) of the weights, whose steps are "
        f"unstable on {unstable:.0%} of the tasks.",
    ]
