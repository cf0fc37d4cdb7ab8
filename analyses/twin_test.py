"""Twins: distilling Thompson sampling and predicting optimal actions have one optimum. One function, one mechanism?

Both policies minimise a divergence from P(action is optimal | history), one told of it (Algorithm Distillation, arXiv
2210.14215, on Thompson's laws), the other from optimal actions (arXiv 2306.14892, whose proposition says so). They
differ in the histories that they trained on: Thompson's own, and pulls by one law per task. So they are compared where

    function    KL between two networks, of one objective (the ceiling: they differ in seeds) and of both
    influence   what turning a coin over does to the odds, by its age (`probes.influence`): Thompson forgets nothing
    streams     what one network's residual stream adds, beyond counts, sums and means, to reading another's (ridge,
                held-out tasks), of one objective and of both, beside untrained networks and streams of other tasks
    swaps       two contexts differ in one arm's rewards, all turned over: how far logits go where a layer's memory
                tokens, its query, or what a probe reads there, come from the other context (`probes.interchange`)

No verdict is made of it: two networks that read alike may compute alike, or only carry what follows from one function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, product

import pandas as pd
import torch
from torch import Tensor

from algorithms.acting import follow
from algorithms.bandit import Thompson
from algorithms.fit_laws import kl
from analyses.behavioural_battery import fading, kernels
from analyses.configs import TwinTest
from analyses.in_context_improvement import Z95, imitators
from analyses.limits import at_least
from analyses.policy_subjects import in_batches, train_all
from analyses.probe_questions import steps
from analyses.swaps import Players, probed, swapped, tidied
from analyses.tables import select, tidy
from models.networks import initial_weights
from models.policy import PolicyTransformer
from probes.contexts import KINDS, designed
from probes.interchange import policy_stream
from probes.policy_targets import BANDIT_QUANTITIES, bandit_base, learner_targets
from tasks.bandits import BanditFamily
from tasks.interaction import Interaction
from tasks.streams import uniforms

ANALYSIS = "twin-test"
BETWEEN = "one of each"
UNTRAINED = "untrained"
PULLS = 16  # of every arm, in the contexts of influence kernels
SWAPS = 30  # contexts of every kind: every swap is made with many random subspaces, too
SWAPPED = ("posterior mean", "UCB index", "ln p*", "Q, step .4")


def run(config: TwinTest) -> dict[str, pd.DataFrame]:
    """Tables function (KL by kind of context), influence, streams, increments (what the swapped probes read) and
    swaps. Raises ConfigError for fewer contexts than controls of all streams need."""
    at_least("seeds", config.seeds, 2, "as pairs are of different seeds")
    at_least("n_steps", config.n_steps, config.n_arms + 1, "as every arm is pulled before one is asked for")
    numbers = max(config.n_layers * config.d_model, len(SWAPPED) * config.n_arms)  # that are read at once
    at_least("contexts", config.contexts, numbers // len(KINDS) + 1, "as controls need more contexts than targets")
    trained = imitators(config)
    train_all(trained.values())
    twins = {name: subject.trained() for name, subject in trained.items()}
    history = designed(BanditFamily(n_arms=config.n_arms), config.n_steps, config.contexts, "twins")
    pulls = min(PULLS, (config.n_steps - 1) // config.n_arms)
    thompson = {"thompson": (Thompson(), [0])}
    turned = designed(BanditFamily(n_arms=config.n_arms), config.n_steps, SWAPS, "twins/swaps")
    found, swaps = increments_and_swaps(twins, history, turned)
    tables = {
        "function": function(twins, history),
        "influence": kernels(
            {name: player for name, (player, _) in (twins | thompson).items()},
            {name: seeds for name, (_, seeds) in (twins | thompson).items()},
            [pulls],
            config.n_arms,
        ),
        "streams": streams(twins, history),
        "increments": found,
        "swaps": swaps,
    }
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def function(twins: Players, history: Interaction) -> pd.DataFrame:
    """kl: by kind of context, of every two networks' laws, the mean of both directions, nats per step, its interval
    over contexts; subject: their objective, or BETWEEN. Equal seeds began alike and are no pair.
    thompson: of Thompson's law from each network's."""
    laws = {name: in_batches(policy.laws, history) for name, (policy, _) in twins.items()}
    truth = in_batches(lambda h: follow(Thompson(), h).laws, history)
    networks = [(name, seed, laws[name][i, None]) for name, (_, k) in twins.items() for i, seed in enumerate(k)]
    tables = []
    for place, kind in enumerate(KINDS):
        part = slice(place, None, len(KINDS))
        for (one, seed, p), (other, another, q) in combinations(networks, 2):
            if seed == another:
                continue
            both = (kl(p, q) + kl(q, p)).mean(-1)[0, part] / 2
            tables.append(_mean_over_tasks(both, subject=one if one == other else BETWEEN, target=kind, metric="kl"))
        for name, _, p in networks:
            off = kl(truth, p).mean(-1)[0, part]
            tables.append(_mean_over_tasks(off, subject=name, target=kind, metric="thompson"))
    return pd.concat(tables, ignore_index=True)


def _mean_over_tasks(values: Tensor, **labels: str) -> pd.DataFrame:
    mean, half = float(values.mean()), Z95 * float(values.std()) / len(values) ** 0.5
    return tidy([mean], {"seed": [0]}, low=mean - half, high=mean + half, **labels)


def streams(twins: Players, history: Interaction) -> pd.DataFrame:
    """read: the share of what counts, sums and means leave of one network's stream (`target`: its objective, `of`: its
    seed) that the stream of another (`learner`: its objective, or UNTRAINED) explains at the same depth, in tasks held
    out; shuffled: where the stream that is read is that of other tasks. Intervals over tasks."""
    times = steps(history.n_steps)
    base = bandit_base(history, times)
    policy, seeds = next(iter(twins.values()))
    bare = [1000 + seed for seed in seeds]
    readers = {**twins, UNTRAINED: (PolicyTransformer(policy.config, initial_weights(policy.config, bare)), bare)}
    tables = []
    for name, (player, own_seeds) in twins.items():
        stream = policy_stream(player, history)[1:, ..., times, :]
        for (place, seed), (reader, who) in product(enumerate(own_seeds), readers.items()):
            targets = {str(depth): each[place, None] for depth, each in enumerate(stream, 1)}
            rows = probed(*who, history, times, base, targets).rows
            rows = rows[rows["target"] == rows["layer"].astype("string")]
            rows = rows[rows["seed"] != seed]  # nobody reads itself, or who began as it did
            left = 1 - select(rows, metric="base").groupby("layer")["value"].first()
            for metric, label in (("increment", "read"), ("shuffled", "shuffled")):
                part = select(rows, metric=metric)
                ends = {end: part[end] / part["layer"].map(left) for end in ("value", "low", "high")}
                tables.append(part.assign(target=name, of=seed, learner=reader, subject=name, metric=label, **ends))
    return tidied(tables)


def increments_and_swaps(twins: Players, history: Interaction, given: Interaction) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the streams add to counts, sums and means of each quantity in `history`, and how far swaps of it take logits
    between `given` and the same with one arm's rewards turned over; see `analyses.swaps.swapped`. choice:
    Thompson's likeliest arm in the other context is chosen."""
    times = steps(history.n_steps)
    base = bandit_base(history, times)
    quantities = {name: BANDIT_QUANTITIES[name] for name in SWAPPED}
    targets = learner_targets(quantities, history, times)
    other = turned_over(given)
    choices = tuple(follow(Thompson(), h).laws[..., -1, :].argmax(-1) for h in (given, other))
    found, swaps = [], []
    for name, (policy, seeds) in twins.items():
        probes = probed(policy, seeds, history, times, base, targets)
        found.append(probes.rows.assign(subject=name))
        swaps.append(swapped(policy, seeds, given, other, (choices[0], choices[1]), probes.coef).assign(subject=name))
    return tidied(found), tidied(swaps)


def turned_over(history: Interaction) -> Interaction:
    """The same pulls; the rewards of one arm, drawn anew for every task, are one minus what they were."""
    arm = (uniforms([0], "twins/arm", 0, history.batch[1]) * history.n_actions).long()
    return replace(history, reward=torch.where(history.action == arm[..., None], 1 - history.reward, history.reward))


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Median KL by group of pairs, influence of old rewards, what streams read of each other, and where swaps act."""
    lines = ["KL between networks, nats (median pair), by kind of context"]
    told, kinds = select(tables["function"], metric="kl"), list(KINDS)
    for group, rows in told.groupby("subject", sort=False):
        medians = rows.groupby("target")["value"].median()
        lines.append(f"  {group:22}" + "".join(f"{kind} {medians[kind]:.4f}  " for kind in kinds))
    n = int(tables["influence"]["pulls"].max())
    lines.append(f"shares of the newest and the oldest of {n} rewards of an arm, and what odds among others have of it")
    for name in tables["influence"]["subject"].unique():
        lines.append(f"  {name:22}" + "".join(f"{x:9.3f}" for x in fading(tables["influence"], name, n)))
    lines.append("share of a stream beyond counts, sums and means that another network's stream reads, by layer")
    read = select(tables["streams"], metric="read")
    for (target, reader), rows in read.groupby(["target", "learner"], sort=False):
        lines.append(f"  {target:22}by {reader:22}" + _by_layer(rows))
    lines.append("share of the way that logits go when one arm's rewards are turned over in, by layer")
    swaps = select(tables["swaps"], metric="way")
    for (name, what), rows in swaps.groupby(["subject", "target"], sort=False):
        lines.append(f"  {name:22}{what:16}" + _by_layer(rows))
    return "\n".join(lines)


def _by_layer(rows: pd.DataFrame) -> str:
    """The median over networks."""
    return "".join(f"{value:7.2f}" for value in rows.groupby("layer")["value"].median())
