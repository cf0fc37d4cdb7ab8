"""The algorithm zoo: policies that were distilled from known learners. Does the verdict name the learner?

Fixed before any policy was trained: the sources with their constants (ZOO), the contexts, the rivals and the rule,
which are those of `learnscope inspect`, and which sources count: those from whose law every other rival, its constants
fitted, surely stays at least SEPARATE away (the lower end of the interval over contexts, which are others than those
that policies are asked on). A rival that contains the source lies at zero, so that a
source with richer relatives in the bank (`algorithms.acting_bank.NESTING`) never counts; it is examined all the same.

What is asked here is what was trained, so that rates are those of the best case: a policy that was distilled on its
source's own histories alone is elsewhere not its source.

All sources have one architecture, one training and the same contexts. A policy is *assigned* where its verdict names
its source alone, *ambiguous* where it names the source among others, *wrong* where what it names leaves the source out,
and *missed* where it names nobody, or the training diverged. Intervals are over learners, whose policies are no
independent trials, even where a learner is the source of two kinds. Controls are untrained policies, as they begin and
with laws as sharp as trained ones', and policies that learnt from histories whose rewards were in random order: they
are *rejected*, or else whatever is named is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import binomtest, bootstrap
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.acting_bank import BANDIT, acting_learner
from algorithms.fit_laws import constant_law, fit_laws, law_divergence
from analyses.configs import AlgorithmZoo
from analyses.examine_laws import LEAST, LawExamination, examine_laws
from analyses.in_context_improvement import Z95
from analyses.limits import at_least, once_each
from analyses.policy_subjects import PolicySubject, bandit_network, in_batches, train_all, training_table
from analyses.tables import select, tidy
from models.networks import initial_weights
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_sources import LawDistillation, PolicySource, ShuffledRewards
from probes.behaviour import Interval
from probes.contexts import KINDS, designed
from probes.verdict import MARGIN, Verdict
from tasks.bandits import BanditFamily
from tasks.errors import ConfigError
from tasks.interaction import Interaction

ANALYSIS = "algorithm-zoo"
SOFT = {"temperature": 0.2, "lapse": 0.02}  # laws that say much, and exclude nothing
# By name the learner and its constants; exploration ends where a fit starts, as it cannot move that by steps.
ZOO: dict[str, tuple[str, dict[str, float]]] = {
    "lcb": ("lcb", SOFT | {"initial": 0.5, "malus": 1.5}),
    "wary-lcb": ("lcb", SOFT | {"temperature": 0.3, "initial": 0.5, "malus": 2.5}),
    "discounted-ucb": ("discounted-ucb", SOFT | {"initial": 1.0, "bonus": 0.5, "discount": 0.85}),
    "curious-discounted-ucb": ("discounted-ucb", SOFT | {"initial": 1.0, "bonus": 1.0, "discount": 0.9}),
    "gittins": ("gittins", {"temperature": 0.02, "lapse": 0.05}),
    "gradient-bandit": ("gradient-bandit", {"lapse": 0.02, "step_size": 1.0, "baseline": 1.0}),
    "slow-gradient-bandit": ("gradient-bandit", {"lapse": 0.02, "step_size": 0.6, "baseline": 1.0}),
    "exp3": ("exp3", {"temperature": 3.0, "lapse": 0.1}),
    "slow-exp3": ("exp3", {"temperature": 4.0, "lapse": 0.05}),
    "forgetting": ("forgetting", SOFT | {"temperature": 0.15, "step_size": 0.4, "initial": 0.5, "forget": 0.2}),
    "fast-forgetting": ("forgetting", SOFT | {"step_size": 0.7, "initial": 0.5, "forget": 0.3}),
    "explore-then-commit": ("explore-then-commit", SOFT | {"initial": 0.0, "explore": 10.0}),
    "long-explore-then-commit": ("explore-then-commit", SOFT | {"initial": 0.0, "explore": 20.0}),
    "thompson": ("thompson", {"temperature": 1.0, "lapse": 0.0}),
    "posterior-mean": ("posterior-mean", {"temperature": 0.1, "lapse": 0.02, "strength": 2.0, "prior_mean": 1.0}),
    "win-stay-lose-shift": ("win-stay-lose-shift", {"stay": 0.8, "shift": 0.6}),
    "empirical-mean": ("empirical-mean", SOFT | {"initial": 0.5}),
    "ucb": ("ucb", SOFT | {"initial": 1.0, "bonus": 0.8}),
    "ucb1": ("ucb1", SOFT | {"initial": 1.0, "bonus": 0.5}),
    "constant-step": ("constant-step", SOFT | {"initial": 0.5, "step_size": 0.3}),
}
# By policies' name, the learner that each was distilled from; controls have none.
LEARNERS = {name: learner for name, (learner, _) in ZOO.items()}
# Nats per step. A policy whose laws hold less than LEAST holds nothing to explain, so less than that may be missing
# from one that has learnt its source; the rule needs every other rival MARGIN times as far away.
SEPARATE = MARGIN * LEAST
# Their rewards are shuffled for two ensembles of controls: one source that counts, and one that fades.
SHUFFLED = ("gittins", "forgetting")
UNTRAINED, SHARP = "untrained", "untrained, sharp"
SHARPER = 10.0  # times the first read-out, which is made a tenth of the usual size
COUNTED, OTHERS, CONTROLS = "counted", "others", "controls"
JUDGEMENTS = ("assigned", "ambiguous", "missed", "wrong")  # of policies with a source
REJECTED = "rejected"  # a control, as it should be


def subjects(config: AlgorithmZoo) -> dict[str, PolicySubject]:
    """The policies of every source, one per seed, and those that see shuffled rewards."""
    training = PolicyTraining(
        steps=config.steps,
        batch_tasks=config.batch_tasks,
        tasks_at_once=8 * config.batch_tasks,
        learning_rate=config.learning_rate,
    )
    lessons: dict[str, PolicySource] = {
        name: LawDistillation(BanditFamily(n_arms=config.n_arms), source(config, name), config.n_steps)
        for name in config.sources
    }
    lessons |= {f"{name}, shuffled": ShuffledRewards(lessons[name]) for name in SHUFFLED if name in lessons}
    network = bandit_network(config)
    return {
        name: PolicySubject(name, network, training, lesson, config.seeds, config.out)
        for name, lesson in lessons.items()
    }


def source(config: AlgorithmZoo, name: str) -> ActingLearner:
    """The learner that policies of that name were distilled from."""
    learner, constants = ZOO[name]
    return acting_learner(learner, constants, **told(config).get(learner, {}))


def told(config: AlgorithmZoo) -> dict[str, dict[str, Any]]:
    """What learners must know beforehand: how many pulls there are."""
    return {"gittins": {"horizon": config.n_steps}}


def contexts(config: AlgorithmZoo, n: int, purpose: str) -> tuple[Interaction, int]:
    """Designed contexts (1, tasks), n of every kind, in float64, and how many of them are fitted to."""
    history = designed(BanditFamily(n_arms=config.n_arms), config.n_steps, n, purpose)
    return history.each(lambda x: x.double() if x.is_floating_point() else x), len(KINDS) * (n // 2)


def run(config: AlgorithmZoo) -> dict[str, pd.DataFrame]:
    """Tables separation (of sources and rivals), networks (verdicts), laws (KL to source and rivals, between seeds,
    floor), rates and training.

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    once_each("sources", config.sources, tuple(ZOO))
    once_each("rivals", config.rivals, tuple(BANDIT))
    if len(config.rivals) < 2:
        given = ", ".join(map(repr, config.rivals))
        raise ConfigError(f"rivals is {given} alone; allowed: at least 2, as sources need another one")
    for name in ("contexts", "separation_contexts"):
        at_least(name, getattr(config, name), 2, "as half of them are fitted to")
    at_least("n_steps", config.n_steps, 2, "as arms change their worth half-way")
    apart = separation(config)
    trained = subjects(config)
    train_all(trained.values())
    policies = {name: subject.trained() for name, subject in trained.items()}
    policies |= untrained(bandit_network(config), config.seeds)
    history, n_fitting = contexts(config, config.contexts, "zoo")
    laws = {name: in_batches(policy.double().laws, history) for name, (policy, _) in policies.items()}
    found = examine_laws(
        torch.cat([*laws.values()]), history, config.rivals, n_fitting=n_fitting, settings=told(config)
    )
    who = [(name, seed) for name, (_, seeds) in policies.items() for seed in seeds]
    group = groups(apart)
    networks = pd.concat([judged(who, found.verdicts, group), *lost(policies, config.seeds, group)], ignore_index=True)
    taught = {name: source(config, name) for name in config.sources}
    tables = {
        "separation": apart,
        "networks": networks,
        "laws": pd.concat([divergences(who, found), beside(taught, laws, policies, history, n_fitting)]),
        "rates": rates(networks),
        "training": training_table(trained),
    }
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def separation(config: AlgorithmZoo) -> pd.DataFrame:
    """How far the sources are from all rivals, on contexts of their own; see `separated`."""
    history, n_fitting = contexts(config, config.separation_contexts, "zoo/separation")
    taught = {name: source(config, name) for name in config.sources}
    return separated(taught, history, config.rivals, n_fitting, told(config))


def separated(
    taught: Mapping[str, ActingLearner],
    history: Interaction,
    rivals: Sequence[str],
    n_fitting: int,
    settings: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """kl: nats per step of a source's law from the nearest member of every rival family, and its interval over held-out
    contexts; floor: from the best law that is always the same."""
    laws = torch.cat([follow(learner, history).laws for learner in taught.values()])
    fits = fit_laws(laws, history, rivals, n_fitting=n_fitting, settings=settings)
    each = torch.stack([fits[name].kl for name in rivals], -2)
    kls, half = each.mean(-1), Z95 * each.std(-1) / each.shape[-1] ** 0.5
    floor = constant_law(laws, n_fitting).mean(-1)
    place = {"subject": [*taught]}
    table = tidy(kls, place | {"learner": rivals}, low=kls - half, high=kls + half, metric="kl")
    return pd.concat([table, tidy(floor, place, metric="floor")])


def nearest(apart: pd.DataFrame, learners: Mapping[str, str] = LEARNERS) -> pd.DataFrame:
    """By source, the other rival (`learner`) that comes nearest to its law, and the KL (`value`, and its interval)."""
    rows = select(apart, metric="kl")
    rows = rows[rows["learner"] != rows["subject"].map(learners)]
    return rows.loc[rows.groupby("subject", sort=False)["low"].idxmin()].set_index("subject")


def groups(apart: pd.DataFrame, learners: Mapping[str, str] = LEARNERS) -> dict[str, str]:
    """By source, whether it counts: whether all other rivals are surely SEPARATE nats away."""
    lows = nearest(apart, learners)["low"]
    return {str(name): COUNTED if low >= SEPARATE else OTHERS for name, low in lows.items()}


def untrained(network: PolicyConfig, n_seeds: int) -> dict[str, tuple[PolicyTransformer, list[int]]]:
    """Policies before training: as they begin, nearly uniform, and with larger read-outs."""
    seeds = list(range(n_seeds))
    first = initial_weights(network, seeds)
    sharp = first | {"W_U": SHARPER * first["W_U"]}
    return {name: (PolicyTransformer(network, w), seeds) for name, w in ((UNTRAINED, first), (SHARP, sharp))}


def judged(
    who: Sequence[tuple[str, int]],
    verdicts: Sequence[Verdict],
    groups: Mapping[str, str],
    learners: Mapping[str, str] = LEARNERS,
) -> pd.DataFrame:
    """A row per network: its group, the outcome, whom the verdict names, and how that is judged; value: noise."""
    rows = []
    for (name, seed), verdict in zip(who, verdicts, strict=True):
        answer = verdict.learners[0] if verdict.outcome == "identified" else verdict.outcome
        facts = {"target": groups.get(name, CONTROLS), "answer": answer, "named": ", ".join(verdict.learners)}
        how = judgement(name, verdict, learners)
        row = tidy([verdict.noise], {"seed": [seed]}, subject=name, metric="noise", judged=how)
        rows.append(row.assign(**facts))
    return pd.concat(rows, ignore_index=True)


def lost(policies: Mapping[str, tuple[Any, list[int]]], n_seeds: int, groups: Mapping[str, str]) -> list[pd.DataFrame]:
    """Rows like those of `judged` for policies that diverged: missed."""
    facts = {"metric": "noise", "judged": "missed", "answer": "none", "named": ""}
    return [
        tidy([float("nan")], {"seed": [seed]}, subject=name, target=groups.get(name, CONTROLS), **facts)
        for name, (_, kept) in policies.items()
        for seed in sorted(set(range(n_seeds)) - set(kept))
    ]


def judgement(name: str, verdict: Verdict, learners: Mapping[str, str] = LEARNERS) -> str:
    """One of JUDGEMENTS of a policy with a source, REJECTED or wrong of a control."""
    if name not in learners:
        return REJECTED if verdict.outcome == "none" else "wrong"
    if verdict.outcome == "none":
        return "missed"
    if learners[name] not in verdict.learners:
        return "wrong"
    return "assigned" if verdict.learners == (learners[name],) else "ambiguous"


def rates(networks: pd.DataFrame, learners: Mapping[str, str] = LEARNERS) -> pd.DataFrame:
    """The share of every judgement by group, a mean over learners with its interval; index column: n, networks."""
    tables = []
    for group, rows in networks.groupby("target", sort=False):
        for name in (REJECTED, "wrong") if group == CONTROLS else JUDGEMENTS:
            learner = rows["subject"].map(lambda subject: learners.get(subject, subject))
            share = rows["judged"].eq(name).groupby(learner).mean()
            found = clustered(share.to_numpy(dtype=float))
            ends = {"low": [found.low], "high": [found.high]}
            tables.append(tidy([found.value], {"metric": [name]}, **ends, target=group, n=len(rows)))
    return pd.concat(tables, ignore_index=True)


def clustered(shares: np.ndarray) -> Interval:
    """The mean of the shares of learners (or of controls) [n], and its 95 % bootstrap interval over them.

    Where all are 0 or all are 1 a bootstrap has no width: then the exact interval of so many single trials.
    """
    mean, n = float(shares.mean()), len(shares)
    if mean in (0.0, 1.0) or n == 1:
        ends = binomtest(round(mean * n), n).proportion_ci()
    else:
        ends = bootstrap((shares,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return Interval(mean, float(ends.low), float(ends.high))


def divergences(
    who: Sequence[tuple[str, int]], found: LawExamination, learners: Mapping[str, str] = LEARNERS
) -> pd.DataFrame:
    """rival: KL to every fitted rival, nats per step on held-out contexts; floor: to the best constant law.

    Index column: own, whether the rival is what the policy was distilled from.
    """
    network, names = {"network": range(len(who))}, [*found.fits]
    rivals = torch.stack([fit.kl.mean(-1) for fit in found.fits.values()], -1)
    table = pd.concat(
        [tidy(rivals, network | {"learner": names}, metric="rival"), tidy(found.floor, network, metric="floor")]
    )
    subjects, seeds = zip(*(who[i] for i in table["network"]), strict=True)
    own = [learners.get(name) == learner for name, learner in zip(subjects, table["learner"], strict=True)]
    return table.assign(subject=subjects, seed=seeds, own=own).drop(columns="network")


def beside(
    taught: Mapping[str, ActingLearner],
    laws: Mapping[str, Float[Tensor, "seeds tasks steps actions"]],
    policies: Mapping[str, tuple[PolicyTransformer, list[int]]],
    history: Interaction,
    n_fitting: int,
) -> pd.DataFrame:
    """source: KL to the very law that was taught; seeds: to the next seed's, the ceiling. Nats on held-out contexts."""
    rest, tables = history.each(lambda x: x[:, n_fitting:]), []
    for name, learner in taught.items():
        said, place = laws[name][:, n_fitting:], {"seed": policies[name][1]}
        meant = follow(learner, rest).laws.expand_as(said)
        tables.append(tidy(law_divergence(said, meant).mean(-1), place, subject=name, metric="source"))
        if len(said) > 1:
            between = law_divergence(said, said.roll(1, 0)).mean(-1)
            tables.append(tidy(between, place, subject=name, metric="seeds"))
    return pd.concat(tables)


def rates_told(table: pd.DataFrame) -> list[str]:
    """Which sources count, and a line per group of policies."""
    lines = [f"sources count from which every other rival surely stays {SEPARATE:.2g} nats away (95 % over learners)"]
    for group, rows in table.groupby("target", sort=False):
        found = ", ".join(f"{row.metric} {row.value:.0%} [{row.low:.0%}, {row.high:.0%}]" for row in rows.itertuples())
        lines.append(f"  {group} ({rows['n'].iloc[0]} policies): {found}")
    return lines


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Rates by group, and every source: whom its policies are called, what they leave of it, and the nearest rival."""
    networks, laws = tables["networks"], tables["laws"]
    lines = rates_told(tables["rates"])
    rivals = nearest(tables["separation"])
    for name, own in networks.groupby("subject", sort=False):
        answers = own["named"].replace("", "none").str.replace(", ", "|").value_counts()
        line = f"  {name:26}" + ", ".join(f"{count} {answer}" for answer, count in answers.items())
        if name in rivals.index:
            rival, left = rivals.loc[name], select(laws, subject=name, metric="source")["value"].median()
            line += f"; leaves {left:.4f} nats of its source, {rival['learner']} is {rival['value']:.4f} away"
        lines.append(line)
    return "\n".join(lines)
