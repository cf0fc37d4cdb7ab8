"""What do policies carry, and what of it do they use? Values, a model of transitions, a successor representation.

Layerwise ridge probes of contexts that no policy chose (uniform and skewed walks, rewards that move), split by task:
what counts is what the residual stream adds to the token, time, counts, sums and means, beyond an untrained network,
and beyond what it adds for targets of other tasks and for random ones. A successor representation must add to the asked
state's transitions. Then interchange: two contexts differ in one thing (the actions of the asked state have other
names, or the reward is elsewhere), and at the query only the directions that vary with what a probe reads are swapped.
A policy uses what it carries there if its logits go where the other context takes them, farther than with those of
random probes; the directions of the read-out are the positive control.

The verdict is a rule: the constants below, on intervals corrected for the number of layers. They were fixed before, the
rest was not: swapping the probe's weights as they are came first and failed the positive control (.02 of the way), "not
used" counted what could not be told, and the last layer, next to the read-out, was judged like others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from algorithms.acting import ActingLearner, follow
from algorithms.control import QLearning
from analyses.configs import PolicyProbes
from analyses.control_subjects import control_subjects, ring
from analyses.in_context_improvement import subjects as bandit_subjects
from analyses.parallel import in_parallel
from analyses.policy_subjects import PolicySubject, train_all
from analyses.probe_questions import (
    PLANNER,
    Pairs,
    bandit_questions,
    bandit_settings,
    control_questions,
    enough_to_probe,
    pairs,
    steps,
)
from analyses.swaps import Players, probed, swapped, tidied
from analyses.tables import select, tidy
from models.policy import PolicyTransformer
from models.policy_sources import optimal_laws
from probes.carried_and_used import best, verdict
from probes.increments import Increments
from probes.linear import ratio_table
from probes.policy_targets import GAMMA, STEP_SIZE
from tasks.rollout import random_walk

ANALYSIS = "policy-probes"
# What a swap of each quantity should do, by the pair of contexts that differ in it.
PAIRS = {
    "exchanged": ("transitions", "successors 0.9", "advantage 5"),
    "moved": ("goal", "value 5", "advantage 5"),
}
CONTROLS = ("shuffled", "random")  # targets that cannot be carried
REFERENCES: dict[str, ActingLearner] = {
    "myopic": replace(PLANNER, n_sweeps=1),
    "planner, 2 sweeps": replace(PLANNER, n_sweeps=2),
    "planner": PLANNER,
    "q-learning": QLearning(step_size=STEP_SIZE, gamma=GAMMA, initial=0.0),
}


def run(config: PolicyProbes) -> dict[str, pd.DataFrame]:
    """Tables ability (share of optimal choices by step), increments (of both kinds of tasks, column task),
    interchange (share of the way gone, choices) and answers (a verdict per policy, seed and quantity).

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    enough_to_probe(config)
    contexts = pairs(config)
    control = control_subjects(config)
    bandits = bandit_subjects(bandit_settings(config)) if config.bandits else {}
    train_all([*control.values(), *bandits.values()])
    found = in_parallel(
        probed_and_swapped, [(each, config, contexts) for each in control.values()], "probing", "policy"
    )
    found += in_parallel(probed_on_arms, [(each, config) for each in bandits.values()], "probing", "bandit policy")
    tables = {
        "ability": ability({name: subject.trained() for name, subject in control.items()}, config),
        **{name: pd.concat([each[name] for each in found if name in each]) for name in ("increments", "interchange")},
    }
    tables["answers"] = answers(tables)
    return {name: table.reset_index(drop=True).assign(analysis=ANALYSIS) for name, table in tables.items()}


def ability(players: Players, config: PolicyProbes) -> pd.DataFrame:
    """optimal: the share of optimal choices by step of uniform walks in new tasks, where not all actions are; late: of
    the second half, with its interval over tasks. Reference learners beside the policies."""
    tasks = ring(config).draw([0], "test", 0, config.test_tasks)
    history = random_walk(tasks, config.n_steps, purpose="test/uniform")
    where = history.observation[..., None].expand(*history.observation.shape, tasks.n_actions)
    best = optimal_laws(tasks, GAMMA).gather(-2, where)
    matters = (best.amin(-1) == 0).double()
    laws = {name: follow(learner, history).laws for name, learner in REFERENCES.items()}
    with torch.no_grad():
        laws |= {name: policy.laws(history) for name, (policy, _) in players.items()}
    tables = []
    for name, law in laws.items():
        seeds = players[name][1] if name in players else [0]
        right = matters * (best.expand_as(law).gather(-1, law.argmax(-1, keepdim=True))[..., 0] > 0)
        share = right.sum(1) / matters.sum(1).clamp(min=1)
        axes = {"seed": seeds, "step": range(1, config.n_steps + 1)}
        tables.append(tidy(share, axes, subject=name, metric="optimal"))
        half = (x[..., config.n_steps // 2 :].sum(-1)[..., None].expand(len(seeds), -1, -1) for x in (right, matters))
        late = ratio_table(*half, ["late"], "late").assign(subject=name, step=config.n_steps)
        tables.append(late.rename(columns={"layer": "seed"}).assign(seed=seeds).drop(columns="target"))
    return tidied(tables)


def control_increments(policy: PolicyTransformer, seeds: Sequence[int], config: PolicyProbes) -> list[Increments]:
    """Of all quantities, see `control_questions`."""
    history, asked = control_questions(config, config.test_tasks // 3)
    return [probed(policy, seeds, history, steps(history.n_steps), *each) for each in asked]


def probed_and_swapped(subject: PolicySubject, config: PolicyProbes, contexts: Pairs) -> dict[str, pd.DataFrame]:
    """Increments and interchange of a policy on rings."""
    policy, seeds = subject.trained()
    found = control_increments(policy, seeds, config)
    increments = pd.concat([each.rows for each in found]).assign(subject=subject.name, task="ring")
    coef = {target: read for each in found for target, read in each.coef.items()}
    return {
        "increments": increments,
        "interchange": interchange(policy, seeds, coef, contexts).assign(subject=subject.name),
    }


def probed_on_arms(subject: PolicySubject, config: PolicyProbes) -> dict[str, pd.DataFrame]:
    """Increments of a policy on bandits."""
    rows = bandit_increments(*subject.trained(), config)
    return {"increments": rows.assign(subject=subject.name, task="bandit")}


def bandit_increments(policy: PolicyTransformer, seeds: Sequence[int], config: PolicyProbes) -> pd.DataFrame:
    """Of all quantities, see `bandit_questions`."""
    history, *asked = bandit_questions(config, config.test_tasks // 3)
    return probed(policy, seeds, history, steps(history.n_steps), *asked).rows


def interchange(
    policy: PolicyTransformer, seeds: Sequence[int], coef: Mapping[str, Tensor], contexts: Pairs
) -> pd.DataFrame:
    """The swaps of every pair of contexts, between which the planner's choice differs: see `analyses.swaps.swapped`."""
    tables = [
        swapped(policy, seeds, *contexts[pair], {name: coef[name] for name in names}).assign(pair=pair)
        for pair, names in PAIRS.items()
    ]
    return tidied(tables)


def answers(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Per policy, seed, pair and quantity the verdict on its inner layers, after which more than the read-out follows,
    with the numbers of the surest one. What is no more than the upper ends of CONTROLS is not carried. able: the share
    of pairs in which both choices of the policy, unedited, are the planner's (a coin: .25)."""
    rows = []
    increments = select(tables["increments"], task="ring")
    carries, controls = (increments[increments["metric"].isin(m)] for m in (["beyond untrained"], CONTROLS))
    for (subject, seed, pair), own in tables["interchange"].groupby(["subject", "seed", "pair"], sort=False):
        able = select(own, metric="unedited")["value"].iloc[0]
        everything = select(own, target="everything", metric="way").set_index("layer")["value"]
        for target in PAIRS[str(pair)]:
            place = {"subject": subject, "seed": seed, "target": target}
            carried = select(carries, **place).set_index("layer")
            chance = select(controls, **place).groupby("layer")["high"].max()
            sure = (carried["low"] > 0) & (carried["value"] > chance)
            ways = {m: rows.set_index("layer") for m, rows in select(own, target=target).groupby("metric")}
            beyond = ways["beyond random"]
            inner = beyond.index[: max(1, len(beyond) - 1)]
            found = pd.DataFrame(
                {
                    "carried": carried["value"].where(sure, 0.0),
                    **{name: beyond[name] for name in ("value", "low", "high")},
                    "farthest": ways["farthest random"]["value"] - ways["random"]["value"],
                    "room": everything - ways["random"]["value"],
                }
            ).loc[inner]
            place |= {"pair": pair, "verdict": verdict(found)}
            layer = best(found)
            for metric, table in (("decodable", carried), ("used", beyond)):
                rows.append({**place, "metric": metric, "layer": layer, **table.loc[layer, ["value", "low", "high"]]})
            rows.append({**place, "metric": "able", "value": able})
    return tidied([pd.DataFrame(rows)])


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """How well policies act, a verdict per objective on every quantity, and what layers of bandit policies add."""
    late = select(tables["ability"], metric="late")
    lines = ["optimal choices in the second half of uniform walks in new rings (median seed; a coin: .5)"]
    for name in late["subject"].unique():
        lines.append(f"  {name:42}{select(late, subject=name)['value'].median():.2f}")
    lines.append(
        "what policies carry and use: seeds by verdict; medians: R² beyond an untrained network, way beyond random "
        "subspaces, pairs in which both choices are the planner's"
    )
    answers = tables["answers"]
    for (subject, pair, target), own in answers.groupby(["subject", "pair", "target"], sort=False):
        words = select(own, metric="used")["verdict"].value_counts()
        tally = ", ".join(f"{word} {n}" for word, n in words.items())
        numbers = (select(own, metric=metric)["value"].median() for metric in ("decodable", "used", "able"))
        lines.append(f"  {subject:42}{target:16}{pair:10}" + "".join(f"{x:6.2f}" for x in numbers) + f"   {tally}")
    bandit = select(tables["increments"], task="bandit", metric="beyond untrained")
    if len(bandit):
        lines.append(
            "bandits: what the best layer adds to counts, sums and means beyond an untrained one (median seed)"
        )
    for name in bandit["subject"].unique():
        per_seed = select(bandit, subject=name).groupby(["target", "seed"], sort=False)["value"].max()
        medians = per_seed.groupby("target", sort=False).median()
        lines.append(f"  {name:22}" + ", ".join(f"{target} {value:.2f}" for target, value in medians.items()))
    return "\n".join(lines)
