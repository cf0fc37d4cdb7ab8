"""Three ways to train a policy on bandits: do they learn new ones in context, and whose law do they follow?

Algorithm Distillation of Thompson sampling (arXiv 2210.14215, on the source's whole law), decision pretraining (arXiv
2306.14892), whose optimum is Thompson's law as well, and reinforcement pretraining (arXiv 1611.02779), whose optimum
plans for the pulls that are left. All act in the same new tasks, beside learners. Rewards are expected ones, the means
of the arms that were pulled: that leaves out what luck adds, and differences stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.bandit import LCB, UCB1, EmpiricalMean, PosteriorMean, Random, Thompson
from algorithms.bayes_adaptive import Gittins
from algorithms.fit_laws import kl
from analyses.configs import BanditSettings, ImitationSettings, InContextImprovement
from analyses.limits import at_least
from analyses.policy_subjects import PolicySubject, bandit_network, in_batches, played, train_all, training_table
from analyses.tables import select, tidy
from models.policy_config import PolicyTraining
from models.policy_sources import DecisionPretraining, Distillation, PolicySource, Reinforcement, mixed_laws
from tasks.bandits import BanditFamily
from tasks.decision import DecisionTasks
from tasks.interaction import Interaction
from tasks.rollout import roll_out

ANALYSIS = "in-context-improvement"
DISTILLED, PRETRAINED, REINFORCED = "distilled", "decision-pretrained", "reinforced"
GREEDY = 1e-3  # temperature
DRAWN_TOGETHER = 4  # batches of imitation
EPOCHS = 3  # clipped steps on every roll-out: to act takes longer than to learn from it
Z95 = 1.96  # two-sided, for means over many tasks
# Rewards of 100 pulls of 5 arms (arXiv 1611.02779, table 1).
PUBLISHED = {"Gittins, published": 78.3, "RL², published": 78.7}
CONTEXTS = 500  # on which laws are compared

Laws = Callable[[Interaction], Tensor]
"""The laws of every action along a history."""


def baselines(n_steps: int) -> dict[str, ActingLearner]:
    """Learners that act in the same tasks; UCB with the constant that does best here."""
    return {
        "random": Random(),
        "thompson": Thompson(),
        "posterior-mean": PosteriorMean(temperature=GREEDY, lapse=0.0),
        "ucb1": UCB1(temperature=GREEDY, lapse=0.0, initial=1.0, bonus=0.3 / 2**0.5),
        "gittins": Gittins(temperature=GREEDY, lapse=0.0, horizon=n_steps),
    }


def imitators(config: ImitationSettings) -> dict[str, PolicySubject]:
    """The two whose optimum is Thompson's law, by name."""
    family, n = _family(config), config.imitation_tasks
    distillation = PolicyTraining(steps=config.imitation_steps, batch_tasks=n, tasks_at_once=DRAWN_TOGETHER * n)
    pretraining = replace(distillation, steps=config.pretraining_steps)
    lessons: dict[str, tuple[PolicyTraining, PolicySource]] = {
        DISTILLED: (distillation, Distillation(family, Thompson(), config.n_steps, "law")),
        PRETRAINED: (pretraining, DecisionPretraining(family, config.n_steps)),
    }
    network = bandit_network(config)
    return {
        name: PolicySubject(name, network, training, source, config.seeds, config.out)
        for name, (training, source) in lessons.items()
    }


def subjects(config: BanditSettings) -> dict[str, PolicySubject]:
    """All three by name. Raises ConfigError for trials in which there is nothing to learn."""
    at_least("n_steps", config.n_steps, 2, "as the first pull has nothing to go by")
    n = config.reinforcement_tasks
    acting = PolicyTraining(
        "actor-critic",
        config.reinforcement_steps,
        batch_tasks=n,
        tasks_at_once=n,
        learning_rate=6e-3,
        warmup=20,
        epochs=EPOCHS,
    )
    network, tasks = replace(bandit_network(config), critic=True), Reinforcement(_family(config), config.n_steps)
    reinforced = PolicySubject(REINFORCED, network, acting, tasks, config.seeds, config.out)
    return {**imitators(config), REINFORCED: reinforced}


def _family(config: ImitationSettings) -> BanditFamily:
    return BanditFamily(n_arms=config.n_arms)


def run(config: InContextImprovement) -> dict[str, pd.DataFrame]:
    """Tables reward (by step and in total, with paired differences to Thompson's), laws (KL on three kinds of
    contexts), offline (suboptimality by the size of the context) and training.

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    at_least("test_tasks", config.test_tasks, 2, "as intervals are over tasks")
    trained = subjects(config)
    train_all(trained.values())
    players = {name: subject.trained() for name, subject in trained.items()}
    tasks = BanditFamily(n_arms=config.n_arms).draw([0], "test", 0, config.test_tasks)
    histories = {name: played(policy, tasks, config.n_steps, seeds) for name, (policy, seeds) in players.items()}
    known = {name: played(learner, tasks, config.n_steps, [0]) for name, learner in baselines(config.n_steps).items()}
    axes = {name: seeds for name, (_, seeds) in players.items()} | {name: [0] for name in known}
    contexts = held_contexts(tasks, histories, config.n_steps)
    policies = {name: policy.laws for name, (policy, _) in players.items()}
    tables = {
        "reward": pd.concat([rewards({**known, **histories}, tasks, axes), published(config)], ignore_index=True),
        "laws": laws(policies, contexts, axes),
        "offline": offline(policies, contexts["mixed"], tasks, axes),
        "training": training_table(trained, ("loss", "reward", "entropy")),
    }
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def rewards(histories: Mapping[str, Interaction], tasks: DecisionTasks, axes: Mapping[str, list[int]]) -> pd.DataFrame:
    """reward by step; total, with the interval of its mean over tasks; difference to Thompson's, paired by task."""
    means, tables = tasks.mean_rewards[..., 0, :], []
    got = {name: means.expand(len(axes[name]), -1, -1).gather(-1, h.action) for name, h in histories.items()}
    reference = got["thompson"].sum(-1)
    got["oracle"] = means.amax(-1, keepdim=True).expand_as(got["thompson"])
    for name, each in got.items():
        seeds = axes.get(name, [0])
        steps = {"seed": seeds, "step": range(1, each.shape[-1] + 1)}
        tables.append(tidy(each.mean(1), steps, subject=name, metric="reward"))
        total = each.sum(-1)
        for metric, values in (("total", total), ("difference", total - reference)):
            mean, half = values.mean(-1), Z95 * values.std(-1) / values.shape[-1] ** 0.5
            ends = {"low": mean - half, "high": mean + half}
            tables.append(tidy(mean, {"seed": seeds}, subject=name, metric=metric, **ends))
    return pd.concat(tables, ignore_index=True)


def published(config: BanditSettings) -> pd.DataFrame:
    """Published totals; empty for any other setting than theirs."""
    table = tidy(list(PUBLISHED.values()), {"subject": list(PUBLISHED)}, metric="published")
    return table if (config.n_arms, config.n_steps) == (5, 100) else table.iloc[:0]


def held_contexts(tasks: DecisionTasks, histories: Mapping[str, Interaction], n_steps: int) -> dict[str, Interaction]:
    """Contexts that no policy was trained on, (1, tasks): Thompson's own, those of decision pretraining, and what the
    first seed of the reinforced policy does."""
    some = tasks.select(slice(0, CONTEXTS))
    law = mixed_laws([0], "test/mixture", 0, some.batch[1], tasks.n_actions)
    mixed = roll_out(some, lambda seen: law, n_steps, purpose="test/mixed")
    own = histories[REINFORCED].each(lambda x: x[:1, : some.batch[1]])
    return {"thompson": played(Thompson(), some, n_steps, [0]), "mixed": mixed, REINFORCED: own}


def laws(
    policies: Mapping[str, Laws], contexts: Mapping[str, Interaction], axes: Mapping[str, list[int]]
) -> pd.DataFrame:
    """kl: of Thompson's law from the policy's (nats, a mean over tasks and steps); seeds: of one seed from the next,
    NaN where there is but one; between: of the first seeds of two policies."""
    tables = []
    for context, history in contexts.items():
        truth = in_batches(lambda h: follow(Thompson(), h).laws, history)
        said = {name: in_batches(own, history) for name, own in policies.items()}
        for name, law in said.items():
            labels = {"subject": name, "target": context}
            between = kl(law, law.roll(1, 0)) if len(law) > 1 else torch.full_like(law[..., 0], torch.nan)
            found = {"kl": kl(truth, law), "seeds": between}
            for metric, value in found.items():
                per_task = value.mean(-1)
                mean, half = per_task.mean(-1), Z95 * per_task.std(-1) / per_task.shape[-1] ** 0.5
                ends = {"low": mean - half, "high": mean + half}
                tables.append(tidy(mean, {"seed": axes[name]}, metric=metric, learner="thompson", **ends, **labels))
            others = {other: kl(law[:1], said[other][:1]).mean() for other in said if other != name}
            names = list(others)
            tables.append(tidy([float(x) for x in others.values()], {"learner": names}, metric="between", **labels))
    return pd.concat(tables, ignore_index=True)


def offline(
    policies: Mapping[str, Laws], history: Interaction, tasks: DecisionTasks, axes: Mapping[str, list[int]]
) -> pd.DataFrame:
    """The gap mu* - mu_a of the likeliest action after so many pulls of somebody else's (fig. 2 of 2306.14892)."""
    means = tasks.select(slice(0, history.batch[1])).mean_rewards[..., 0, :]
    greedy = {"temperature": GREEDY, "lapse": 0.0}
    learners = {"empirical-mean": EmpiricalMean(initial=-1.0, **greedy), "lcb": LCB(initial=-1.0, malus=0.8, **greedy)}
    learners["thompson"] = Thompson()
    said = {name: in_batches(own, history) for name, own in policies.items()}
    said |= {name: in_batches(lambda h, f=f: follow(f, h).laws, history) for name, f in learners.items()}
    tables = []
    for name, law in said.items():
        chosen = means.expand(len(law), -1, -1).gather(-1, law.argmax(-1))
        gap = (means.amax(-1, keepdim=True) - chosen).mean(1)
        place = {"seed": axes.get(name, [0]), "step": range(gap.shape[-1])}
        tables.append(tidy(gap, place, subject=name, metric="suboptimality"))
    return pd.concat(tables, ignore_index=True)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Totals beside the learners', paired differences to Thompson's, and KL to its law: the median seed of each."""
    lines = ["expected reward of a trial on new tasks (median seed), its difference to Thompson's, 95 % over tasks"]
    reward, laws = tables["reward"], tables["laws"]
    for name in reward.loc[reward["metric"] != "published", "subject"].unique():
        total, gap = (median_seed(select(reward, subject=name, metric=metric)) for metric in ("total", "difference"))
        line = f"  {name:22}{total['value']:6.1f} [{total['low']:.1f}, {total['high']:.1f}]"
        if name != "thompson":
            line += f"   {gap['value']:+.2f} [{gap['low']:+.2f}, {gap['high']:+.2f}]"
        lines.append(line)
    lines.append("KL of Thompson's law from the policy's, nats (beside it: between seeds)")
    for name in laws["subject"].unique():
        found = []
        for context in laws["target"].unique():
            kls = select(laws, subject=name, target=context)
            own, seeds = (select(kls, metric=metric)["value"].median() for metric in ("kl", "seeds"))
            found.append(f"{context} {own:.3f}" + (f" ({seeds:.3f})" if np.isfinite(seeds) else ""))
        lines.append(f"  {name:22}on contexts of " + ", ".join(found))
    return "\n".join(lines)


def median_seed(rows: pd.DataFrame) -> pd.Series:
    """The row of the seed whose value is the median (the lower of two)."""
    ordered = rows.sort_values("value")
    return ordered.iloc[(len(ordered) - 1) // 2]
