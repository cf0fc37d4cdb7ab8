"""How many training tasks it takes until a policy has learnt to learn, and not learnt the tasks by heart.

Bandits with success probabilities U(0, 1), of which training knows M (per seed, its own). Two policies: Algorithm
Distillation of Thompson sampling's law (arXiv 2210.14215), whose target is the same whatever M, and decision
pretraining (arXiv 2306.14892), whose optimum is posterior sampling with the M tasks as prior: a task is recognised, and
its best arm is known. With all tasks as prior both optima are Thompson's law.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot, pad

from algorithms.acting import follow, interact
from algorithms.bandit import Thompson
from algorithms.fit_laws import kl
from analyses.configs import PretrainingDiversity
from analyses.limits import at_least
from analyses.policy_subjects import PolicySubject, in_batches, played, train_all
from analyses.tables import select, tidy
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig, PolicyTraining
from models.policy_sources import DecisionPretraining, Distillation
from tasks.bandits import BanditFamily
from tasks.decision import DecisionTasks, Pool
from tasks.interaction import Interaction

ANALYSIS = "pretraining-diversity"
DISTILLED, PRETRAINED = "distilled", "decision-pretrained"
THOMPSON, BY_HEART = "thompson", "by-heart"
TRAINING, NEW = "training", "new"
Z95 = 1.96  # two-sided, for means over many tasks
CONTEXTS = 100  # on which laws are compared
CERTAIN = 1e-6  # a probability is at least so far from 0 and 1


def subjects(config: PretrainingDiversity, n_tasks: int | None) -> dict[str, PolicySubject]:
    """The two policies trained on so many tasks, None for ever new ones."""
    family = _training_tasks(config, n_tasks)
    policy = PolicyConfig(
        n_observations=1,
        n_actions=config.n_arms,
        n_ctx=config.n_steps,
        d_model=config.d_model,
        n_layers=config.n_layers,
        d_mlp=4 * config.d_model,
        reward_shift=0.5,
        reward_scale=0.5,
    )
    training = PolicyTraining(
        steps=config.steps, batch_tasks=config.batch_tasks, tasks_at_once=4 * config.batch_tasks, snapshot_every=50
    )
    sources = {
        DISTILLED: Distillation(family, Thompson(), config.n_steps, "law"),
        PRETRAINED: DecisionPretraining(family, config.n_steps),
    }
    return {
        name: PolicySubject(name, policy, training, source, config.seeds, config.out)
        for name, source in sources.items()
    }


def _family(config: PretrainingDiversity) -> BanditFamily:
    return BanditFamily(n_arms=config.n_arms)


def _training_tasks(config: PretrainingDiversity, n_tasks: int | None) -> BanditFamily | Pool:
    return _family(config) if n_tasks is None else Pool(_family(config), n_tasks)


def run(config: PretrainingDiversity) -> dict[str, pd.DataFrame]:
    """Tables skill (share of the attainable gain over random, on training and on new tasks), laws (KL from Thompson's
    law and from posterior sampling by heart, in Thompson's contexts) and training. Index column: pool, M.

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    at_least("test_tasks", config.test_tasks, 2, "as intervals are over tasks")
    pools = (*config.pools, None)
    trained = {(n, name): subject for n in pools for name, subject in subjects(config, n).items()}
    train_all(trained.values())
    parts: dict[str, list[pd.DataFrame]] = {"skill": [], "laws": [], "training": []}
    for (n, _), subject in trained.items():
        for table, rows in measure(config, n, subject).items():
            parts[table].append(rows.assign(pool=pd.array([n], dtype="Int64")[0]))
    new = _family(config).draw([0], "test", 0, config.test_tasks)
    thompson = played(Thompson(), new, config.n_steps, [0])
    parts["skill"].append(skill(thompson, new, [0]).assign(subject=THOMPSON, target=NEW, pool=pd.NA))
    found = {name: pd.concat(rows, ignore_index=True).astype({"pool": "Int64"}) for name, rows in parts.items()}
    return {name: table.assign(analysis=ANALYSIS) for name, table in found.items()}


def measure(config: PretrainingDiversity, n_tasks: int | None, subject: PolicySubject) -> dict[str, pd.DataFrame]:
    """What one ensemble does on its training tasks and on new ones, and whose laws it follows there."""
    policy, seeds = subject.trained()
    new = _family(config).draw([0], "test", 0, config.test_tasks).expanded(len(seeds))
    seen = _training_tasks(config, n_tasks).draw(seeds, "test/training", 0, config.test_tasks)
    by_heart = None if n_tasks is None else _family(config).draw(seeds, "pool", 0, n_tasks).mean_rewards[..., 0, :]
    parts: dict[str, list[pd.DataFrame]] = {"skill": [], "laws": []}
    for target, tasks in ((TRAINING, seen), (NEW, new)):
        history = played(policy, tasks, config.n_steps, seeds)
        parts["skill"].append(skill(history, tasks, seeds).assign(subject=subject.name, target=target))
        some = tasks.select(slice(0, CONTEXTS))
        with torch.no_grad():
            context = interact(Thompson(), some, config.n_steps, seeds=seeds, purpose="test/context")
        parts["laws"].append(laws(policy, context, by_heart, seeds).assign(subject=subject.name, target=target))
    record = subject.train()
    axes = {"step": record.step[1:].tolist(), "seed": range(subject.seeds)}
    loss = tidy(record.loss[1:], axes, subject=subject.name, metric="loss")
    return {**{name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}, "training": loss}


def skill(history: Interaction, tasks: DecisionTasks, seeds: list[int]) -> pd.DataFrame:
    """The share of the attainable gain over random that actions have brought, in expected rewards."""
    means = tasks.mean_rewards[..., 0, :].expand(*history.batch, -1)
    got = means.gather(-1, history.action).mean(-1)
    value, low, high = share(got - means.mean(-1), means.amax(-1) - means.mean(-1))
    return tidy(value, {"seed": seeds}, low=low, high=high, metric="skill")


def share(
    gain: Float[Tensor, "seeds tasks"], attainable: Float[Tensor, "seeds tasks"]
) -> tuple[Tensor, Tensor, Tensor]:
    """mean gain / mean attainable, and its ends by the delta method: the variance of gain - share * attainable."""
    value = gain.mean(-1) / attainable.mean(-1)
    left = gain - value[..., None] * attainable
    half = Z95 * left.std(-1) / (gain.shape[-1] ** 0.5 * attainable.mean(-1))
    return value, value - half, value + half


def laws(
    policy: PolicyTransformer,
    context: Interaction,
    known: Float[Tensor, "seeds pool arms"] | None,
    seeds: list[int],
) -> pd.DataFrame:
    """KL of Thompson's law, and of posterior sampling among the known tasks, from the policy's (nats; a mean over tasks
    and steps, with the interval over tasks)."""
    said = in_batches(policy.laws, context)
    rivals = {THOMPSON: in_batches(lambda h: follow(Thompson(), h).laws, context)}
    if known is not None:
        rivals[BY_HEART] = posterior_sampling(context, known)
    tables = []
    for learner, law in rivals.items():
        each = kl(law, said).mean(-1)
        mean, half = each.mean(-1), Z95 * each.std(-1) / each.shape[-1] ** 0.5
        ends = {"low": mean - half, "high": mean + half}
        tables.append(tidy(mean, {"seed": seeds}, **ends, metric="kl", learner=learner))
    return pd.concat(tables, ignore_index=True)


def posterior_sampling(
    history: Interaction, known: Float[Tensor, "seeds pool arms"]
) -> Float[Tensor, "seeds tasks steps arms"]:
    """P(a is the best arm | the steps before), the known tasks all equally likely at first; rewards are coins.

    p(m | D) ~ prod_j mu_m(a_j)^r_j (1 - mu_m(a_j))^(1 - r_j): where no task was left out, this is Thompson's law.
    """
    arm = one_hot(history.action, history.n_actions).to(known)
    won = arm * history.reward[..., None].to(known)
    wins, losses = (pad(x, (0, 0, 1, 0))[..., :-1, :].cumsum(-2) for x in (won, arm - won))
    means = known.clamp(CERTAIN, 1 - CERTAIN)[:, None]  # [seeds, 1, pool, arms]
    likelihood = wins @ means.log().mT + losses @ torch.log1p(-means).mT
    best = one_hot(known.argmax(-1), history.n_actions).to(known)[:, None]
    return likelihood.softmax(-1) @ best


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Skill on training and on new tasks by the number of training tasks, and whose law is followed on new ones."""
    skill, laws = tables["skill"], select(tables["laws"], target=NEW)
    thompson = select(skill, subject=THOMPSON)["value"].iloc[0]
    lines = [
        "share of the attainable gain over random, median seed [seeds], and KL from the law of Thompson (by heart)",
        f"  Thompson sampling on new tasks: {thompson:.2f}",
    ]
    for name in skill["subject"].unique():
        if name == THOMPSON:
            continue
        lines.append(f"  {name}")
        for pool in (*sorted(skill["pool"].dropna().unique().tolist()), None):
            found = []
            for target in (TRAINING, NEW):
                rows = _of(select(skill, subject=name, target=target), pool)["value"]
                found.append(f"{target} {rows.median():.2f} [{rows.min():.2f}, {rows.max():.2f}]")
            kls = _of(select(laws, subject=name), pool).groupby("learner")["value"].median()
            by_heart = f" ({kls[BY_HEART]:.3f})" if BY_HEART in kls else ""
            tasks = "unlimited" if pool is None else f"{pool} tasks"
            lines.append(f"    {tasks:12}{', '.join(found)}, KL {kls[THOMPSON]:.3f}{by_heart}")
    return "\n".join(lines)


def _of(rows: pd.DataFrame, pool: int | None) -> pd.DataFrame:
    """The rows of one number of training tasks; none stands for unlimited."""
    return rows[rows["pool"].isna()] if pool is None else select(rows, pool=pool)
