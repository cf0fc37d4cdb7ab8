"""One network, one prompt, one family of tasks; what it is trained for differs. Is what it comes to run still TD?

Looped linear attention reads a random walk through tasks in which greed for the next reward is at chance, and answers
for every state and action. Value objectives take the answers as Q, policies as logits. Every seed is asked the same:
how often it acts optimally; which constants its weights encode; what edits of its weights, its turns and its context
do; and which learner its advantages Q(s, a) - Q(s, 0) are, each rival up to a unit of its own, since preferences have
none. Value objectives are asked for state values, too, the mean of Q over actions: all that TD on state values fixes.
Positive controls are planted networks, which must be named; controls see rewards in random order, or no next pairs, or
are not trained; references are learners on the same walks, and the sources of the distillations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.bank import LEARNERS, build
from algorithms.bank import RIVALS as BANK
from algorithms.fit import fit_bank
from algorithms.learner import Learner
from algorithms.learner import constants as declared
from analyses.action_classes import MATTERS, class_lines, classes
from analyses.action_edits import LOOPS, accuracies, inside
from analyses.action_planted import PLANTED, planted
from analyses.action_sources import distance_to_source, source_reference
from analyses.action_subjects import HIDDEN, HeldOut, Subjects, held_out, preferences, untrained
from analyses.configs import ActionObjective, ValueVsPolicy
from analyses.examine import Examination, examine
from analyses.limits import at_least, once_each
from analyses.parallel import in_parallel
from analyses.tables import select, tidy
from models.action_objectives import VALUE_OBJECTIVES
from models.linear import LinearTransformer, layout_of
from models.train_actions import ActionRecord
from probes.behaviour import Subject, median_interval
from probes.discrimination import PromptFamily, Prompts, prompts_from
from probes.weights import read_weights
from tasks.action_values import Asked, Hidden
from tasks.decision import DecisionFamily, optimal_values
from tasks.layout import Prompt
from tasks.streams import uniforms

ANALYSIS = "value-vs-policy"
VALUES = tuple(VALUE_OBJECTIVES)
# The reference learners; their constants are those that act best on tasks of their own.
REFERENCES = ("myopic", "td0", "td-plus-plus", "lstd", "monte-carlo")
TRIED = 400  # constants around the least-squares fit
# Preconditioned TD is left out: its matrix alone would be 196 constants to a seed.
RIVALS = tuple(name for name in BANK if name not in ("preconditioned-td", "average-reward-td"))


def run(config: ValueVsPolicy) -> dict[str, pd.DataFrame]:
    """Tables seeds (by seed: accuracy, constants of the weights, edits), lesions, successors, verdicts, rivals (what
    each leaves of the advantages, or of state values: column target), classes (of the signs of the constants),
    references (accuracies of learners) and training.

    Raises ConfigError for settings without an answer, before anything is trained.
    """
    for name in ("objectives", "controls"):
        once_each(name, getattr(config, name), get_args(ActionObjective))
    at_least("context_length", config.context_length, 2, "as half of it is asked, too")
    at_least("test_tasks", config.test_tasks, 6, "as the exact interval of a median needs")
    jobs = [Subjects(config, objective) for objective in config.objectives]
    hidings: list[Hidden] = [hidden for hidden, title in HIDDEN.items() if title]
    jobs += [Subjects(config, objective, hidden) for objective in config.controls for hidden in hidings]
    records = in_parallel(Subjects.train, [(job,) for job in jobs], "training", "objective")
    reports = in_parallel(examine_subjects, list(zip(jobs, records, strict=True)), "examining", "objective")
    reports += in_parallel(examine_planted, [(config, name) for name in PLANTED], "examining", "planted network")
    reports.append(examine_network(*untrained(config)))
    parts: dict[str, list[pd.DataFrame]] = {}
    for found in reports:
        for name, table in found.items():
            parts.setdefault(name, []).append(table)
    tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    sources = [source_reference(job) for job in jobs if job.source]
    tables["references"] = pd.concat([references(config), *sources], ignore_index=True)
    tables["classes"] = classes(tables)
    return {name: table.assign(analysis=ANALYSIS) for name, table in tables.items()}


def examine_subjects(subjects: Subjects, record: ActionRecord) -> dict[str, pd.DataFrame]:
    """All that is measured of the seeds that did not diverge, and how their loss fell."""
    gone = record.diverged()
    seeds = [seed for seed in range(subjects.settings.seeds) if seed not in gone]
    P, Q = (weight[-1, seeds].double() for weight in (record.P, record.Q))
    axes = {"step": record.step[1:].tolist(), "seed": seeds}
    loss = tidy(record.loss[1:, seeds], axes, subject=subjects.name, metric="loss")
    network = LinearTransformer(subjects.config, P, Q)
    return {**examine_network(subjects, network, seeds), "training": loss}


def examine_planted(config: ValueVsPolicy, name: str) -> dict[str, pd.DataFrame]:
    """The same of a positive control."""
    return examine_network(*planted(config, name))


def examine_network(subjects: Subjects, model: LinearTransformer, seeds: list[int]) -> dict[str, pd.DataFrame]:
    """Accuracies, constants and edits by seed, verdicts on what is asked, and what every rival leaves of it."""
    test = held_out(subjects)
    axes, numbers = {"seed": seeds}, accuracies(model, test) | constants(model) | agreement(model, test)
    numbers |= distance_to_source(subjects, model, test)
    tables = [tidy(value, axes, metric=metric, subject=subjects.name) for metric, value in numbers.items()]
    found = {"seeds": pd.concat(tables, ignore_index=True)} | inside(model, test, subjects.name, seeds)
    asked: list[Asked] = ["advantages"]
    if subjects.objective in (*VALUES, *PLANTED):
        asked.append("values")
    parts = [verdict_tables(examined(subjects, model, what), subjects.name, seeds, what) for what in asked]
    return found | {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def constants(model: LinearTransformer) -> dict[str, Float[Tensor, " seeds"]]:
    """alpha_eff = p c and the bootstrap strength p c' of the weights, free of the gauge, gamma_eff = c' / c, and the
    distances to constructions, without which these constants say nothing: 0 is the construction, 1 as far as can be."""
    read = read_weights(model)
    alpha, gamma = read.alpha_eff[:, 0], read.gamma_eff[:, 0]
    distances = {f"distance to {name}": read.constructions[name].distance[:, 0] for name in ("td0", "td-plus-plus")}
    return {"alpha_eff": alpha, "gamma_eff": gamma, "bootstrap": alpha * gamma, **distances}


def agreement(model: LinearTransformer, test: HeldOut) -> dict[str, Float[Tensor, " seeds"]]:
    """Correlations of the network's advantages with those of the walk's policy and of the best one, over all tasks."""

    def advantages(q: Tensor) -> Tensor:
        return (q - q.mean(-1, keepdim=True)).flatten(1)

    own = advantages(preferences(model, test))
    targets = {"walk": advantages(test.walk), "optimal": advantages(test.optimal)}
    return {f"correlation, {name}": torch.cosine_similarity(own, target, -1) for name, target in targets.items()}


def examined(subjects: Subjects, model: LinearTransformer, asked: Asked) -> Examination:
    """Every rival on the advantages, each up to a unit of its own, or on state values, which have theirs; where several
    are left, other contexts and loops."""
    s, walks = subjects.settings, replace(subjects.walks, asked=asked)
    own = PromptFamily("own prompts", walks, s.context_length, model.layout.discount)
    deeper = [replace(own, name=f"{k} times the loops", loops=k) for k in LOOPS[1:]]
    lengths = (s.context_length // 2, 4 * s.context_length)
    longer = [replace(own, name=f"context of {n}", context_length=n) for n in lengths]
    prompts = prompts_from(model.layout)
    return examine(
        Subject.of(model),
        (own, *deeper, *longer),
        prompts if asked == "advantages" else of_states(prompts, walks.family),
        fitting_tasks=s.fitting_tasks,
        held_out_tasks=s.test_tasks,
        starts=read_weights(model).starts(),
        rivals=RIVALS,
        scaled=asked == "advantages",
    )


def of_states(prompts: Prompts, family: DecisionFamily) -> Prompts:
    """The same prompts with one query per state, the mean of its pairs', and the mean of their answers: v(s)."""
    n_actions = family.draw([0], "size", 0, 1).n_actions

    def prompts_of_states(family: PromptFamily, purpose: str, n: int) -> Prompt:
        prompt = prompts(family, purpose, n)
        queries = prompt.query_tokens.unflatten(-2, (-1, n_actions)).mean(-2)
        length, count = prompt.context.shape[-2], queries.shape[-2]
        return replace(
            prompt,
            tokens=torch.cat([prompt.context, queries], -2),
            queries=torch.arange(length, length + count),
            answers=prompt.answers.unflatten(-2, (-1, n_actions)).mean(-2),
            weights=prompt.weights[..., :count],
        )

    return prompts_of_states


def verdict_tables(examination: Examination, name: str, seeds: list[int], asked: Asked) -> dict[str, pd.DataFrame]:
    """verdicts: outcome and learners by seed; rivals: the median disagreement that each leaves, and its constants."""
    own = examination.rounds[0]
    rows = [
        {"seed": seed, "outcome": verdict.outcome, "learners": ", ".join(verdict.learners)}
        for seed, verdict in zip(seeds, examination.verdicts, strict=True)
    ]
    named = pd.DataFrame(rows)
    verdicts = tidy(np.ones(len(seeds)), {"seed": seeds}, subject=name, target=asked, metric="verdict").drop(
        columns="learner"
    )
    verdicts = verdicts.assign(learner=named["learners"], outcome=named["outcome"])
    tables = []
    for learner, left in own.comparison.disagreement.items():
        labels = {"subject": name, "target": asked, "learner": learner}
        tables.append(tidy(left.nanquantile(0.5, -1), {"seed": seeds}, metric="disagreement", **labels))
        for key, value in own.fits[learner].constants.items():
            tables.append(tidy(value.flatten(1).mean(1), {"seed": seeds}, metric=key, **labels))
    return {"verdicts": verdicts, "rivals": pd.concat(tables, ignore_index=True)}


def references(config: ValueVsPolicy) -> pd.DataFrame:
    """Accuracy of learners on the same walks, and of greed for the walk's true Q, which is what evaluation can give.

    Their constants are fitted to the best advantages on tasks of their own; of those and of TRIED others around them,
    the ones count that act best there.
    """
    subjects = Subjects(config, "reference")
    test, layout = held_out(subjects), layout_of(subjects.config)
    walks = replace(subjects.walks, asked="advantages")
    own = PromptFamily("own prompts", walks, config.context_length, layout.discount)
    fitting = prompts_from(layout)(own, "references", config.fitting_tasks)
    tasks = walks.family.draw([0], "references", 0, config.fitting_tasks).to(torch.float64)
    best = optimal_values(tasks, config.gamma)
    target = (best[..., 1:] - best[..., :1]).flatten(2)[..., None]
    fits = fit_bank(target, fitting, n_steps=config.n_layers, shared=True, rivals=REFERENCES, scaled=True)
    known = HeldOut(tasks, fitting.context, best, best)
    tables = [tidy(test.accuracy(test.walk), {"seed": [0]}, metric="accuracy", learner="true Q of the walk")]
    for name, fit in fits.items():
        tried = {key: around(value, name, key) for key, value in fit.constants.items() if key != "scale"}
        learner = build(name, config.n_layers, tried)
        first = known.accuracy(_values(learner, subjects, known)).argmax() if tried else 0
        accuracy = test.accuracy(_values(learner, subjects, test))[first]
        tables.append(tidy(accuracy[None], {"seed": [0]}, metric="accuracy", learner=name))
    return pd.concat(tables, ignore_index=True).assign(subject="reference")


def around(value: Float[Tensor, "1 1 ..."], name: str, key: str) -> Float[Tensor, "tried 1 ..."]:
    """A fitted constant, and TRIED others between half and twice of it, within its bounds."""
    bounds = declared(LEARNERS[name])[key]
    draws = uniforms([0], f"{ANALYSIS}/{key}", 0, TRIED, *value.shape[1:])[0].double()
    return torch.cat([value, value * 2 ** (2 * draws - 1)]).clamp(bounds.low, bounds.high)


def _values(learner: Learner, subjects: Subjects, test: HeldOut) -> Float[Tensor, "tried tasks states actions"]:
    prompt = subjects.walks.ask(test.tasks, test.context, layout_of(subjects.config))
    with torch.no_grad():
        return learner.predict(prompt)[..., 0].unflatten(-1, test.optimal.shape[-2:])


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """By objective: accuracy, edits, constants, the nearest rivals and the verdicts; medians over seeds."""
    seeds, rivals, verdicts = (tables[name] for name in ("seeds", "rivals", "verdicts"))
    shown = ("accuracy, 2 x loops", "accuracy, lesion", "alpha_eff", "distance to td0", "correlation, optimal")
    lines = [f"{'medians over seeds':38}{'accuracy [95 %]':>20}" + "".join(f"{name:>21}" for name in shown)]
    for name in seeds["subject"].unique():
        own = select(seeds, subject=name)
        median, acting = own.groupby("metric")["value"].median(), select(own, metric="accuracy")["value"]
        ends = median_interval(acting.to_numpy())
        line = f"{median['accuracy']:.2f}" + (f" [{ends.low:.2f}, {ends.high:.2f}]" if np.isfinite(ends.low) else "")
        lines.append(f"  {name:36}{line:>20}" + "".join(f"{median.get(metric, np.nan):21.2f}" for metric in shown))
        asked = select(rivals, subject=name, metric="disagreement")
        for target in asked["target"].unique():
            left = select(asked, target=target).groupby("learner")["value"].median().sort_values()
            nearest = ", ".join(f"{learner} {value:.2g}" for learner, value in left.iloc[:3].items())
            said = select(verdicts, subject=name, target=target).fillna({"learner": ""})
            counts = (said["outcome"] + " " + said["learner"]).str.strip().value_counts()
            told = "; ".join(f"{n} {what}" for what, n in counts.items())
            lines.append(f"    {target}, nearest: {nearest}; verdicts: {told}")
        lines += _blocks(select(tables["lesions"], subject=name), median["accuracy"])
        if "KL from source" in median:
            near = f"{median['KL from source']:.3f} nats, correlation {median['correlation, source']:.2f}"
            lines.append(f"    from its source: {near}")
    lines += class_lines(tables["classes"])
    references = tables["references"]
    acting = select(references, metric="accuracy").set_index("learner")["value"].to_dict()
    lines.append("references: " + ", ".join(f"{name} {value:.2f}" for name, value in acting.items()))
    nats = references[references["metric"].str.startswith("KL")].pivot_table("value", "learner", "metric")
    for learner, row in nats.iterrows():
        told = f"who reads no order is {row['KL floor']:.3f} nats away, at least, a uniform law {row['KL uniform']:.3f}"
        lines.append(f"  {learner}: {told}")
    return "\n".join(lines)


def _blocks(lesions: pd.DataFrame, accuracy: float) -> list[str]:
    """The blocks without which it acts worse by MATTERS, worse also than with their entries in random order."""
    zeroed, permuted = (
        select(lesions, metric=metric).groupby("target", sort=False)["value"].median()
        for metric in ("accuracy", "accuracy, permuted")
    )
    lost = {block: value for block, value in zeroed.items() if accuracy - value > MATTERS}
    if not lost:
        return []
    told = (f"{block} {value:.2f} ({permuted[block]:.2f})" for block, value in lost.items())
    return ["    without a block (with its entries in random order): " + ", ".join(told)]
