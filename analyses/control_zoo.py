"""A zoo for decision problems: policies distilled on rings from known control learners. Does the verdict name them?

As `analyses.algorithm_zoo` for bandits, by the same rule, and with the same distance from which on a source counts;
contexts and rivals are those of `learnscope inspect --task arrival-ring` (in small presets without posterior sampling,
the dearest to fit). Fixed before any policy was asked: the sources with their constants (`taught`), and by the
learners' own laws, on contexts of their own, which sources count. The number of contexts was not: with 8 of every kind,
as for bandits, even exact laws were ambiguous, since on some walks no reward is met early and all rivals say the same.
It is now that of `inspect`.

Laws are learnt along random walks (`models.policy_sources.Following`). Contexts of one kind are such walks; in those of
the other three actions are skewed, rewards move half-way, or a planner acts: there a policy must say what it was hardly
shown. The laws of some sources are learnt again along their own walks, as Algorithm Distillation does: those
policies are a group of their own. So are the exact laws of the sources, which say what the verdict could name if
nothing were missed in training. Controls are untrained policies, and policies whose lessons had their rewards in random
order.

The verdict goes by the median over contexts. Table `unexplained` holds that and the mean, over all contexts and those
of every kind, of what rivals leave, and beside them what the very law that was taught leaves (`SOURCE`), and the policy
of another seed (`SEED`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.bandit import Random
from algorithms.control import ActorCritic, EpisodicControl, ExpectedSarsa, MonteCarlo, PolicyGradient, Sarsa
from algorithms.fit_laws import law_divergence
from algorithms.planning import UCBVI, PosteriorSampling
from analyses.algorithm_zoo import (
    beside,
    divergences,
    groups,
    judged,
    lost,
    nearest,
    rates,
    rates_told,
    separated,
    untrained,
)
from analyses.configs import ControlSettings, ControlZoo
from analyses.control_configs import RingSettings
from analyses.control_subjects import N_SWEEPS, control_subjects, on_own_walks, on_random_walks, ring, sources
from analyses.examine_laws import examine_laws
from analyses.limits import at_least, once_each
from analyses.policy_questions import ARRIVAL, CONTROL_RIVALS, PolicyQuestion, policy_question
from analyses.policy_subjects import PolicySubject, in_batches, train_all, training_table
from analyses.tables import select, tidy
from models.policy_sources import Distillation, Following, PolicySource, ShuffledRewards
from probes.policy_targets import GAMMA, PSEUDO_COUNT, STEP_SIZE
from probes.verdict import FITS
from tasks.errors import ConfigError

ANALYSIS = "control-zoo"
EXACT, OWN_WALKS = "exact laws", "own walks"  # groups, beside those of `analyses.algorithm_zoo`
SOURCE, SEED = "its source", "another seed"
ALL = "all"
SOFT: dict[str, float] = {"temperature": 0.1, "lapse": 0.05, "gamma": GAMMA}

Laws = Float[Tensor, "seeds tasks steps actions"]


def taught() -> dict[str, ActingLearner]:
    """What can be distilled, by its name in the bank: the sources of `analyses.control_subjects`, others as soft."""
    preferring = {"gamma": GAMMA, "lapse": SOFT["lapse"]}
    planning = SOFT | {"pseudo_count": PSEUDO_COUNT}
    return {
        **sources(),
        "monte-carlo-control": MonteCarlo(initial=0.0, **SOFT),
        "policy-gradient": PolicyGradient(step_size=3.0, **preferring),
        "ucb-vi": UCBVI(n_sweeps=N_SWEEPS, bonus_size=0.3, **planning),
        "episodic-control": EpisodicControl(initial=0.0, **SOFT),
        "posterior-sampling": PosteriorSampling(
            n_sweeps=N_SWEEPS, n_draws=16, seed=0, prior_mean=0.0, prior_sd=0.3, noise=0.3, **planning
        ),
        "sarsa": Sarsa(step_size=STEP_SIZE, initial=0.0, **SOFT),
        "expected-sarsa": ExpectedSarsa(step_size=STEP_SIZE, initial=0.0, **SOFT),
        "actor-critic": ActorCritic(step_size=STEP_SIZE, actor_step=5.0, **preferring),
    }


def exactly(source: str) -> str:
    """The name of a source's own laws."""
    return f"{source}, exact law"


# By name, a source's own among them, the learner of whatever has one; controls have none.
LEARNERS = {
    name: source
    for source in taught()
    for name in (source, exactly(source), on_random_walks(source), on_own_walks(source))
}


def subjects(config: ControlZoo) -> dict[str, PolicySubject]:
    """The policies of every source, one per seed, with the network and the training of `control_subjects`."""
    shared = {field.name: getattr(config, field.name) for field in fields(RingSettings)}
    plain = ControlSettings(**shared, objectives=("q-learning on random walks",))
    family, learners, (like,) = ring(plain), taught(), control_subjects(plain).values()
    walks = {name: Following(family, learner, Random(), config.n_steps) for name, learner in learners.items()}
    own = {name: Distillation(family, learner, config.n_steps, "law") for name, learner in learners.items()}
    lessons: dict[str, PolicySource] = {
        **{on_random_walks(name): walks[name] for name in config.sources},
        **{on_own_walks(name): own[name] for name in config.own_walks},
        **{f"{name}, shuffled": ShuffledRewards(walks[name]) for name in config.shuffled},
    }
    return {name: replace(like, name=name, source=lesson) for name, lesson in lessons.items()}


def questions(config: ControlZoo) -> tuple[PolicyQuestion, PolicyQuestion]:
    """What policies are asked, and the other contexts, by which sources are told from rivals beforehand."""
    shape = next(iter(subjects(config).values())).config
    n = config.contexts + config.separation_contexts
    every = policy_question(ARRIVAL, shape, config.n_steps, n, config.rivals)
    first = config.contexts * len(every.kinds)  # contexts of all kinds take turns
    asked, before = (every.history.each(lambda x, part=part: x[:, part]) for part in (slice(first), slice(first, None)))
    return replace(every, history=asked), replace(every, history=before)


def fitted_to(question: PolicyQuestion) -> int:
    """How many of its contexts rivals are fitted to: half of those of every kind."""
    n_kinds = len(question.kinds)
    return question.history.batch[1] // n_kinds // 2 * n_kinds


def run(config: ControlZoo) -> dict[str, pd.DataFrame]:
    """Tables separation (of sources and rivals), networks (verdicts), laws (KL to source and rivals, between seeds,
    floor), unexplained (by kind of context), rates and training.

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    require_answers(config)
    asked, before = questions(config)
    apart = separated(
        {name: taught()[name] for name in config.sources},
        before.history,
        config.rivals,
        fitted_to(before),
        before.settings,
    )
    trained = subjects(config)
    train_all(trained.values())
    policies = {name: subject.trained() for name, subject in trained.items()}
    policies |= untrained(next(iter(trained.values())).config, config.seeds)
    laws = {exactly(name): follow(taught()[name], asked.history).laws for name in config.sources}
    laws |= {name: in_batches(policy.double().laws, asked.history) for name, (policy, _) in policies.items()}
    n_fitting = fitted_to(asked)
    found = examine_laws(
        torch.cat([*laws.values()]), asked.history, config.rivals, n_fitting=n_fitting, settings=asked.settings
    )
    seeds = {name: kept for name, (_, kept) in policies.items()}
    who = {name: [(name, seed) for seed in seeds.get(name, [0])] for name in laws}
    everyone = [network for ensemble in who.values() for network in ensemble]
    known = {name: taught()[LEARNERS[name]] for name in trained if name in LEARNERS}
    floors = dict(zip(laws, found.floor.split([len(each) for each in laws.values()]), strict=True))
    others = {name: references(each, floors[name], known.get(name), asked) for name, each in laws.items()}
    group = grouped(config, apart)
    networks = pd.concat(
        [judged(everyone, found.verdicts, group, LEARNERS), *lost(policies, config.seeds, group)], ignore_index=True
    )
    tables = {
        "separation": apart,
        "networks": networks,
        "laws": pd.concat(
            [divergences(everyone, found, LEARNERS), beside(known, laws, policies, asked.history, n_fitting)]
        ),
        "unexplained": pd.concat(
            [by_kind(left, asked.kinds, who[name]) for name, left in others.items() if left]
            + [by_kind(found.unexplained, asked.kinds, everyone)]
        ),
        "rates": rates(networks, LEARNERS),
        "training": training_table(trained),
    }
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def require_answers(config: ControlZoo) -> None:
    """Raises ConfigError for settings without an answer."""
    once_each("rivals", config.rivals, CONTROL_RIVALS)
    for name in ("sources", "own_walks", "shuffled"):
        once_each(name, getattr(config, name), tuple(taught()))
    if not config.sources:
        raise ConfigError(f"sources is empty; allowed: one or more of {', '.join(taught())}")
    if len(config.rivals) < 2:
        given = ", ".join(map(repr, config.rivals))
        raise ConfigError(f"rivals is {given} alone; allowed: at least 2, as sources need another one")
    for name in ("contexts", "separation_contexts"):
        at_least(name, getattr(config, name), 2, "as half of them are fitted to")
    at_least("n_steps", config.n_steps, 2, "as rewards move half-way")


def grouped(config: ControlZoo, apart: pd.DataFrame) -> dict[str, str]:
    """By name the group of whatever has a source."""
    counts = groups(apart, LEARNERS)
    return {
        **{on_random_walks(name): counts[name] for name in config.sources},
        **{on_own_walks(name): OWN_WALKS for name in config.own_walks},
        **{exactly(name): EXACT for name in config.sources},
    }


def references(
    laws: Laws, floor: Float[Tensor, " seeds"], source: ActingLearner | None, asked: PolicyQuestion
) -> dict[str, Float[Tensor, "seeds held_out"]]:
    """What the very law that was taught, if one was, and the policy of the next seed leave of an ensemble's laws on
    held-out contexts; of one seed alone, no other one."""
    held_out = asked.history.each(lambda x: x[:, fitted_to(asked) :])
    said = laws[:, fitted_to(asked) :]
    others = {} if source is None else {SOURCE: follow(source, held_out).laws.expand_as(said)}
    if len(said) > 1:
        others[SEED] = said.roll(1, 0)
    return {name: law_divergence(said, other) / floor[:, None] for name, other in others.items()}


def by_kind(
    left: Mapping[str, Float[Tensor, "networks held_out"]], kinds: Sequence[str], who: Sequence[tuple[str, int]]
) -> pd.DataFrame:
    """Medians and means of what every learner leaves of each network, over all held-out contexts and those of a kind,
    which take turns."""
    each = torch.stack([*left.values()], 1).unflatten(-1, (-1, len(kinds)))  # [networks, learners, contexts, kinds]
    medians = torch.cat([each.flatten(-2).quantile(0.5, -1, keepdim=True), each.quantile(0.5, -2)], -1)
    means = torch.cat([each.mean((-2, -1))[..., None], each.mean(-2)], -1)
    axes = {"network": range(len(who)), "learner": [*left], "target": [ALL, *kinds]}
    table = pd.concat([tidy(medians, axes, metric="median"), tidy(means, axes, metric="mean")])
    subjects, seeds = zip(*(who[i] for i in table["network"]), strict=True)
    return table.assign(subject=subjects, seed=seeds).drop(columns="network")


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Rates by group; every ensemble: whom its policies are called, and what its source and the nearest other leave."""
    networks, left = tables["networks"], tables["unexplained"]
    lines = rates_told(tables["rates"])
    for name, row in nearest(tables["separation"], LEARNERS).iterrows():
        lines.append(f"  {name:26}{row['learner']} is {row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}] away")
    lines.append(f"unexplained, medians of seeds (a rival fits below {FITS}), by median and mean over contexts:")
    for name, own in networks.groupby("subject", sort=False):
        answers = own["named"].replace("", "none").str.replace(", ", "|").value_counts()
        line = f"  {name:42}" + ", ".join(f"{count} {answer}" for answer, count in answers.items())
        rows = select(left, subject=name, target=ALL)
        middle = rows.groupby(["learner", "metric"])["value"].median().unstack().dropna()
        best = middle.drop(index=[SOURCE, SEED], errors="ignore").sort_values("median").index[:1]
        for learner in dict.fromkeys(x for x in (LEARNERS.get(name), *best, SOURCE, SEED) if x in middle.index):
            line += f"; {learner} {middle.loc[learner, 'median']:.3f}, {middle.loc[learner, 'mean']:.3f}"
        lines.append(line)
    return "\n".join(lines)
