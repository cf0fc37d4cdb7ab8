"""One network, one prompt, one family of tasks; what it is trained for differs. Is what it comes to run still TD?

Looped linear attention reads a random walk through tasks in which greed for the next reward is at chance, and answers
for every state and action. Value objectives take the answers as Q, policies as logits. Every seed is asked the same:
how often it acts optimally; which constants its weights encode; what the bootstrap block and further loops do; and
which learner its advantages Q(s, a) - Q(s, 0) are, each rival up to a unit of its own, since preferences have none.
Controls see rewards in random order, or no next pairs, or are not trained; references are learners on the same walks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from algorithms.bank import LEARNERS, build
from algorithms.bank import RIVALS as BANK
from algorithms.fit import fit_bank
from algorithms.learner import Learner
from algorithms.learner import constants as declared
from analyses.action_subjects import HIDDEN, HeldOut, Subjects, held_out, preferences, untrained
from analyses.configs import ActionObjective, ValueVsPolicy
from analyses.examine import Examination, examine
from analyses.limits import at_least, once_each
from analyses.parallel import in_parallel
from analyses.tables import select, tidy
from models.linear import LinearTransformer, layout_of
from models.train_actions import ActionRecord
from probes.behaviour import Subject, median_interval
from probes.discrimination import PromptFamily, prompts_from
from probes.interventions import block_lesions, without_bootstrap_block
from probes.successors import slot_contrasts, squared_cosines, successor_contrasts
from probes.weights import read_weights
from tasks.action_values import Hidden
from tasks.decision import optimal_values
from tasks.streams import uniforms

ANALYSIS = "value-vs-policy"
LOOPS = (1, 2, 4)
MATTERS = 0.1  # of accuracy
ACTS = 0.75  # half of the way from chance to always right
SIGNED = 0.05  # constants below it are no signs of anything
# The reference learners; their constants are those that act best on tasks of their own.
REFERENCES = ("myopic", "td0", "td-plus-plus", "lstd", "monte-carlo")
TRIED = 400  # constants around the least-squares fit
# Preconditioned TD is left out: its matrix alone would be 196 constants to a seed.
RIVALS = tuple(name for name in BANK if name not in ("preconditioned-td", "average-reward-td"))


def run(config: ValueVsPolicy) -> dict[str, pd.DataFrame]:
    """Tables seeds (by seed: accuracy, constants of the weights, edits), verdicts, rivals (what each leaves of the
    advantages), references (accuracies of learners) and training.

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
    examined = in_parallel(examine_subjects, list(zip(jobs, records, strict=True)), "examining", "objective")
    examined.append(examine_network(*untrained(config)))
    parts: dict[str, list[pd.DataFrame]] = {}
    for found in examined:
        for name, table in found.items():
            parts.setdefault(name, []).append(table)
    tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    tables["references"] = references(config)
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


def examine_network(subjects: Subjects, model: LinearTransformer, seeds: list[int]) -> dict[str, pd.DataFrame]:
    """Accuracies, constants and edits by seed, verdicts on the advantages, and what every rival leaves of them."""
    test = held_out(subjects)
    axes, numbers = {"seed": seeds}, accuracies(model, test) | constants(model) | agreement(model, test)
    tables = [tidy(value, axes, metric=metric, subject=subjects.name) for metric, value in numbers.items()]
    found = {"seeds": pd.concat(tables, ignore_index=True)} | inside(model, test, subjects.name, seeds)
    return found | verdict_tables(advantages_examined(subjects, model), subjects.name, seeds)


def inside(model: LinearTransformer, test: HeldOut, name: str, seeds: list[int]) -> dict[str, pd.DataFrame]:
    """lesions: accuracy without each named block of P and Q, and with its entries in random order. successors: by
    layer, how far what queries hold of the next states is the distribution k steps on (column steps), as squared
    cosines of what the action changes."""
    rows = []
    for metric, permuted in (("accuracy", False), ("accuracy, permuted", True)):
        for block, network in block_lesions(model, permuted=permuted).items():
            value = test.accuracy(preferences(network, test))
            rows.append(tidy(value, {"seed": seeds}, subject=name, target=block, metric=metric))
    n_layers = model.config.n_layers
    written = slot_contrasts(model, test.context, test.tasks.n_actions)
    carried = squared_cosines(written, successor_contrasts(test.tasks, n_layers))
    axes = {"layer": range(n_layers + 1), "steps": range(1, n_layers + 1), "seed": seeds}
    successors = tidy(carried, axes, subject=name, metric="squared cosine")
    return {"lesions": pd.concat(rows, ignore_index=True), "successors": successors}


def accuracies(model: LinearTransformer, test: HeldOut) -> dict[str, Float[Tensor, " seeds"]]:
    """As trained, with further loops, and without the bootstrap block."""
    deeper = {f"accuracy, {k} x loops": looped(model, k) for k in LOOPS[1:]}
    networks = {"accuracy": model, **deeper, "accuracy, lesion": without_bootstrap_block(model)}
    return {name: test.accuracy(preferences(network, test)) for name, network in networks.items()}


def looped(model: LinearTransformer, factor: int) -> LinearTransformer:
    """The same weights with `factor` times the turns."""
    config = replace(model.config, n_layers=factor * model.config.n_layers)
    return LinearTransformer(config, model.P.detach(), model.Q.detach())


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


def advantages_examined(subjects: Subjects, model: LinearTransformer) -> Examination:
    """Every rival on the advantages, each up to a unit of its own; where several are left, other contexts and loops."""
    s, walks = subjects.settings, replace(subjects.walks, asked="advantages")
    own = PromptFamily("own prompts", walks, s.context_length, model.layout.discount)
    deeper = [replace(own, name=f"{k} times the loops", loops=k) for k in LOOPS[1:]]
    lengths = (s.context_length // 2, 4 * s.context_length)
    longer = [replace(own, name=f"context of {n}", context_length=n) for n in lengths]
    return examine(
        Subject.of(model),
        (own, *deeper, *longer),
        prompts_from(model.layout),
        fitting_tasks=s.fitting_tasks,
        held_out_tasks=s.test_tasks,
        starts=read_weights(model).starts(),
        rivals=RIVALS,
        scaled=True,
    )


def verdict_tables(examination: Examination, name: str, seeds: list[int]) -> dict[str, pd.DataFrame]:
    """verdicts: outcome and learners by seed; rivals: the median disagreement that each leaves, and its constants."""
    own = examination.rounds[0]
    rows = [
        {"seed": seed, "outcome": verdict.outcome, "learners": ", ".join(verdict.learners)}
        for seed, verdict in zip(seeds, examination.verdicts, strict=True)
    ]
    named = pd.DataFrame(rows)
    verdicts = tidy(np.ones(len(seeds)), {"seed": seeds}, subject=name, metric="verdict").drop(columns="learner")
    verdicts = verdicts.assign(learner=named["learners"], outcome=named["outcome"])
    tables = []
    for learner, left in own.comparison.disagreement.items():
        labels = {"subject": name, "learner": learner}
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
        lines.append(_signs(own))
        left = select(rivals, subject=name, metric="disagreement").groupby("learner")["value"].median().sort_values()
        nearest = ", ".join(f"{learner} {value:.2g}" for learner, value in left.iloc[:3].items())
        said = select(verdicts, subject=name).fillna({"learner": ""})
        counts = (said["outcome"] + " " + said["learner"]).str.strip().value_counts()
        lines.append(f"    nearest: {nearest}; verdicts: " + "; ".join(f"{n} {what}" for what, n in counts.items()))
        lines += _blocks(select(tables["lesions"], subject=name), median["accuracy"])
    references = tables["references"].set_index("learner")["value"].to_dict()
    lines.append("references: " + ", ".join(f"{name} {value:.2f}" for name, value in references.items()))
    return "\n".join(lines)


def _signs(seeds: pd.DataFrame) -> str:
    """In how many of the seeds that act well the weights subtract the own value and add the next one, as TD does."""
    wide = seeds.pivot_table("value", "seed", "metric")
    wide = wide[wide["accuracy"] > ACTS]
    alike = (wide["alpha_eff"] > SIGNED) & (wide["bootstrap"] > SIGNED)
    share = binomtest(int(alike.sum()), len(wide)).proportion_ci() if len(wide) else None
    ends = f" [{share.low:.0%}, {share.high:.0%}]" if share else ""
    return f"    signs of TD (own value subtracted, next added) in {alike.sum()} of {len(wide)} seeds that act{ends}"


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
