"""Constructed contexts in which rivals give different answers: what do policies say, and with whom do they agree?

The tests of `probes.battery`, read as one signed number each (`probes.readings`), and influence kernels (how much a
reward still moves the odds, by its age). Policies and rivals are asked alike: contexts of two or three arms begin with
two pulls of each other arm that pay nothing. Rivals have the first constants of the bank, without lapses, and no
constant is fitted: only signs are compared, and what is too small to tell is left out. A test that is longer than what
a policy sees is not made. Many rivals are right to say that nothing changes; so is, of itself, who never says anything:
that is why `random` stands among them.

Rewards of other sizes (test I, and J's .5 and .25) are none that these policies ever saw: what they say there is how
they extrapolate. Influences are therefore those of a coin's two sides, and no slopes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from algorithms.acting import ActingLearner
from algorithms.acting_bank import ACTING, BANDIT, acting_learner
from algorithms.learner import constants
from analyses.configs import BehaviouralBattery
from analyses.in_context_improvement import Z95, subjects
from analyses.limits import at_least
from analyses.policy_subjects import train_all
from analyses.tables import select, tidy
from models.policy import PolicyTransformer
from probes.battery import BANDIT_TESTS, Test
from probes.influence import among_others, balanced_pulls, influence, law_after, on_own_arm, own_lags
from probes.readings import BANDIT_READINGS, SURE, TIE, Reading, agreement, longest, padded, verdict
from tasks.interaction import Interaction

ANALYSIS = "behavioural-battery"
RIVALS = tuple(name for name in BANDIT if name != "bayes-optimal")  # which plans for two arms alone
CONTEXTS = 64  # of every kernel

Player = PolicyTransformer | ActingLearner


def sober(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, ActingLearner]:
    """Learners at the first constants of the bank, without lapses where they can do without."""
    named = {}
    for name in names:
        free = constants(ACTING[name])
        none = {"lapse": 0.0} if "lapse" in free and free["lapse"].low == 0 else {}
        named[name] = acting_learner(name, none, **settings.get(name, {}))
    return named


def run(config: BehaviouralBattery) -> dict[str, pd.DataFrame]:
    """Tables answers (a signed number per test), agreement (of each with every rival) and influence (kernels).

    Raises ConfigError for settings with which nothing can be asked, before anything is trained.
    """
    tests, pulls = asked(config)
    trained = subjects(config)
    train_all(trained.values())
    policies = {name: subject.trained() for name, subject in trained.items()}
    known = sober(RIVALS, {"gittins": {"horizon": config.n_steps}})
    players: dict[str, tuple[Player, Sequence[int]]] = {**policies, **{name: (known[name], [0]) for name in known}}
    said = answers({name: player for name, (player, _) in players.items()}, BANDIT_READINGS, tests, config.n_steps)
    axes = {name: list(seeds) for name, (_, seeds) in players.items()}
    moved = {name: player for name, (player, _) in players.items() if name != "random"}
    tables = {
        "answers": answer_table(said, axes, list(BANDIT_READINGS)),
        "agreement": agreements(said, axes, RIVALS),
        "influence": kernels(moved, axes, pulls, config.n_arms),
    }
    groups = {name: "policy" if name in policies else "rival" for name in players}
    return {name: table.assign(analysis=ANALYSIS, group=table["subject"].map(groups)) for name, table in tables.items()}


def asked(config: BehaviouralBattery) -> tuple[dict[str, Test], list[int]]:
    """The test of every reading for so many arms, and of `pulls` what fits. Raises ConfigError where there is none."""
    own = [BANDIT_TESTS[reading.test] for reading in BANDIT_READINGS.values()]
    most = max(context.n_actions for test in own for context in test.contexts.values())
    at_least("n_arms", config.n_arms, most, "as some tests are of three arms")
    tests = {name: padded(test, config.n_arms) for name, test in zip(BANDIT_READINGS, own, strict=True)}
    least_to_ask(tests.values(), config.n_steps)
    fewest = config.n_arms * min(config.pulls)
    at_least("n_steps", config.n_steps, 1 + fewest, f"as the fewest of {config.n_arms} arms' pulls are {fewest} steps")
    return tests, [n for n in config.pulls if n * config.n_arms < config.n_steps]


def least_to_ask(tests: Iterable[Test], n_steps: int) -> None:
    """Raises ConfigError where n_steps are too few for every test."""
    shortest = min(map(longest, tests))
    at_least("n_steps", n_steps, 1 + shortest, f"as the shortest test has {shortest} steps")


@torch.no_grad()
def answers(
    players: Mapping[str, Player], readings: Mapping[str, Reading], tests: Mapping[str, Test], n_steps: int
) -> dict[str, Float[Tensor, "seeds tests"]]:
    """What every player says to every test; NaN where the test is longer than n_steps allow."""
    said: dict[str, Tensor] = {}
    for name, player in players.items():
        law, found = law_after(player), []
        for key, reading in readings.items():
            fits = longest(tests[key]) < n_steps
            laws = {c: law(_double(context)).double() for c, context in tests[key].contexts.items()} if fits else None
            found.append(torch.full((1,), torch.nan).double() if laws is None else reading.of(laws)[:, 0])
        said[name] = torch.stack(torch.broadcast_tensors(*found), -1)
    return said


def answer_table(
    said: Mapping[str, Float[Tensor, "seeds tests"]], axes: Mapping[str, Sequence[int]], tests: Sequence[str]
) -> pd.DataFrame:
    """value: the reading, a log odds or its change."""
    tables = [
        tidy(_by_seed(values, axes[name]), {"seed": axes[name], "target": tests}, subject=name, metric="answer")
        for name, values in said.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _by_seed(values: Float[Tensor, "#seeds tests"], seeds: Sequence[int]) -> Float[Tensor, "seeds tests"]:
    """What was asked of nobody is unknown of everybody."""
    return values.expand(len(seeds), -1)


def agreements(
    said: Mapping[str, Float[Tensor, "seeds tests"]], axes: Mapping[str, Sequence[int]], rivals: Sequence[str]
) -> pd.DataFrame:
    """agreement: the share of tests with the verdict of a rival; compared: how many tests both can be told of."""
    tables = []
    for name, values in said.items():
        for other in rivals:
            same, n = agreement(_by_seed(values, axes[name]), said[other])
            for metric, value in (("agreement", same), ("compared", n)):
                tables.append(tidy(value, {"seed": axes[name]}, subject=name, learner=other, metric=metric))
    return pd.concat(tables, ignore_index=True)


def kernels(
    players: Mapping[str, Player], axes: Mapping[str, Sequence[int]], pulls: Sequence[int], n_arms: int
) -> pd.DataFrame:
    """own: of a reward on its own arm's odds, others: among the other arms; by the later pulls of the same arm (target
    "own lag") or of any (target "lag"), where every arm has been pulled `pulls` times. Intervals over contexts."""
    tables = []
    for n in pulls:
        history = _double(balanced_pulls(n_arms, n, CONTEXTS, "battery/influence"))
        ages = {
            "own lag": own_lags(history.action),
            "lag": torch.arange(history.n_steps).flip(0).expand(history.action.shape),
        }
        for name, player in players.items():
            kernel = influence(law_after(player), history).double()
            measured = {"own": on_own_arm(kernel, history.action), "others": among_others(kernel, history.action)}
            for target, age in ages.items():
                lags = range(int(age.max()) + 1)
                for metric, values in measured.items():
                    mean, half = by_age(values, age)
                    place = {"seed": axes[name], "lag": lags}
                    labels = {"subject": name, "target": target, "metric": metric, "pulls": n}
                    tables.append(tidy(mean, place, low=mean - half, high=mean + half, **labels))
    return pd.concat(tables, ignore_index=True)


def by_age(
    values: Float[Tensor, "seeds tasks steps"], age: Tensor
) -> tuple[Float[Tensor, "seeds lags"], Float[Tensor, "seeds lags"]]:
    """The mean over contexts of each one's mean at a lag, and half its 95 % interval."""
    at = torch.nn.functional.one_hot(age).to(values)  # [1, tasks, steps, lags]
    per_context = (values[..., None] * at).sum(-2) / at.sum(-2)
    return per_context.mean(1), Z95 * per_context.std(1) / per_context.shape[1] ** 0.5


def _double(history: Interaction) -> Interaction:
    return history.each(lambda x: x.double() if x.is_floating_point() else x)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The signs of all answers, by policy the rivals that agree most often, and how memories fade."""
    influences = tables["influence"]
    lines = [said_and_agreed(tables)]
    n = int(influences["pulls"].max())
    lines.append(f"of the influence of {n} rewards of an arm shares of the newest and the oldest (1/n: {1 / n:.3f}); ")
    lines[-1] += "what odds among other arms have of its own's"
    for name in influences["subject"].unique():
        newest, oldest, others = fading(influences, name, n)
        lines.append(f"  {name:38}{newest:7.3f}{oldest:7.3f}  {others:6.2f}")
    return "\n".join(lines)


def said_and_agreed(tables: Mapping[str, pd.DataFrame]) -> str:
    """The signs of median answers, a column per test, and by policy the rivals that surely have most of them, too."""
    told, agreed = tables["answers"], tables["agreement"]
    tests = list(told["target"].unique())
    lines = [
        f"signs of the median answer (+ and - from {SURE} nats, 0 up to {TIE}, ? between, . not asked), tests in order:"
    ]
    lines += textwrap.wrap("; ".join(tests), 118, initial_indent="  ", subsequent_indent="  ")
    width = max(map(len, told["subject"].unique())) + 2
    for name in told["subject"].unique():
        middle = select(told, subject=name).groupby("target", sort=False)["value"].median()
        lines.append(f"  {name:{width}}" + " ".join(signs(middle[tests].to_numpy())))
    lines.append("tests with the same sign as a rival's, median seed (of how many that can be told), the surest first")
    for name in told.loc[told["group"] == "policy", "subject"].unique():
        best = surest(select(agreed, subject=name))[:4].itertuples()
        shares = ", ".join(f"{row.Index} {row.agreement:.2f} ({row.compared:.0f})" for row in best)
        lines.append(f"  {name:{width}}{shares or 'none that can be told'}")
    return "\n".join(lines)


def surest(agreed: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds by rival, of those with which anything can be compared: agreement, compared and at_least, the
    lower end of the exact 95 % interval (Clopper and Pearson), by which they are ordered: one test proves little."""
    wide = agreed.pivot(index=["learner", "seed"], columns="metric", values="value").dropna()
    same = (wide["agreement"] * wide["compared"]).round().astype(int)
    pairs = zip(same, wide["compared"].astype(int), strict=True)
    ends = [binomtest(k, n).proportion_ci().low for k, n in pairs]
    middle = wide.assign(at_least=ends).groupby("learner", sort=False).median()
    return middle.sort_values("at_least", ascending=False, kind="stable")


def signs(values: np.ndarray) -> list[str]:
    """Of readings: +, -, 0, ? where it cannot be told, . where there is none."""
    words = {1.0: "+", -1.0: "-", 0.0: "0"}
    told = verdict(torch.tensor(values)).tolist()
    return ["." if np.isnan(value) else words.get(sign, "?") for value, sign in zip(values, told, strict=True)]


def fading(influences: pd.DataFrame, name: str, pulls: int) -> tuple[float, float, float]:
    """Medians over seeds: shares of the newest and the oldest reward of an arm, and what other arms have of its own."""
    rows = select(influences, subject=name, target="own lag", pulls=pulls)
    own, others = (select(rows, metric=metric).pivot_table("value", "lag", "seed") for metric in ("own", "others"))
    shares = (own / own.sum()).median(axis=1)
    return shares.iloc[0], shares.iloc[-1], (others.mean() / own.mean()).median()
