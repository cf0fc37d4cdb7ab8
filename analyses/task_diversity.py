"""How many distinct tasks must training show before TD emerges, and which of their components must vary?

arXiv 2405.13861 has one sentence on it: with always the same kernel, or always the same features, in-context TD did not
emerge. Here the number of distinct training tasks grows from one to unlimited, and each component is fixed alone. What
a network has learned instead of TD is measured against the best predictor that knows the training tasks by heart and
only recognises them (`PoolPredictor`); what it runs, by the verdict of `learnscope inspect` on each seed.

The *threshold* is the number of training tasks that bring half of what unlimited ones do, of the median skill on new
tasks, and of the share of the network's predictions there that fitted TD++ explains (`half_way`, `thresholds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import converges, disagreement, square_mean
from algorithms.learner import Learner, Trace
from algorithms.temporal_difference import TD0
from analyses.configs import SubjectSettings, TaskDiversity
from analyses.evidence import verdict_counts
from analyses.examine import Examination, examine
from analyses.parallel import in_parallel
from analyses.subjects import TrainedSubject, held_out_prompt, subject_settings, subject_source, train_all, varied
from analyses.tables import select, tidy
from models.config import ConfigError
from models.linear import LinearTransformer
from probes.behaviour import Interval, Subject, implicit_weight_similarity, predict, task_interval
from probes.discrimination import candidates, prompts_from
from probes.lens import least_squares_weights
from probes.weights import read_weights
from tasks.layout import Prompt, TokenLayout
from tasks.markov_reward import MarkovRewardProcess, TaskFamily, evaluation_prompt
from tasks.streams import uniforms

ANALYSIS = "task-diversity"
BASELINE = "baseline"
FITTING_TASKS, HELD_OUT_TASKS = 128, 200
RECOGNISED_TASKS = 40  # of them, for the pool predictor: it looks at every state of every training task
RIVALS = ("reward-average", "myopic", "td0", "td-plus-plus")  # tabulated, of all that the verdict weighs
POOL = "pool"
PLUS = "td-plus-plus"
# A network farther than this from every rival is halfway to a stranger: zero has disagreement 1 with everything.
STRANGER = 0.5
# How far, in each number of a token, an observed state may lie from one that the pool predictor knows.
TOLERANCE = 0.05
LARGEST_BATCH = 2**22  # numbers in one table of distances
N_RESAMPLES = 1000
BROUGHT = {"subject": "skill", PLUS: "share explained by TD++"}
# The columns of the summary: metric, learner and target.
SUMMARISED = {
    "skill subject new": "skill, new",
    "skill subject pool": "skill, trained",
    "skill pool pool": "by heart",
    "disagreement td0 new": "TD(0)",
    "disagreement td-plus-plus new": "TD++",
    "disagreement myopic new": "myopic",
    "iws subject new": "IWS",
    "iws myopic new": "IWS myopic",
    "iws pool pool": "IWS by heart",
}


def run(config: TaskDiversity) -> dict[str, pd.DataFrame]:
    """Tables seeds (every measure by seed), curves (medians over seeds), answers (a verdict per seed) and thresholds.

    Index columns: pool, the number of distinct training tasks (empty: unlimited), and fixed, the shared components.
    """
    if config.task == "cartpole":
        raise ConfigError("task-diversity needs tasks whose law is known; allowed: boyan-chain, loop, random")
    base = replace(subject_settings(config), n_tasks=None, fixed=())
    settings: dict[tuple[str, int | None, str], SubjectSettings] = {}
    for pool in (*config.pools, None):
        settings[BASELINE, pool, ""] = replace(base, n_tasks=pool)
    for change in config.variations:
        for pool in (*config.variation_pools, None):
            settings[change, pool, ""] = replace(varied(base, change), n_tasks=pool)
    for component in config.components:
        settings[BASELINE, None, component] = replace(base, fixed=(component,))
    if len(config.components) > 1:
        settings[BASELINE, None, "all"] = replace(base, fixed=config.components)
    subjects = train_all(list(settings.values()))
    measured = in_parallel(measure, [(subject,) for subject in subjects], "measuring", "subject")
    parts: dict[str, list[pd.DataFrame]] = {"seeds": [], "answers": []}
    for (name, pool, fixed), tables in zip(settings, measured, strict=True):
        labels = {"analysis": ANALYSIS, "subject": name, "fixed": fixed, "pool": pd.array([pool], dtype="Int64")[0]}
        for table, rows in tables.items():
            parts[table].append(rows.assign(**labels))
    found = {name: pd.concat(rows, ignore_index=True).astype({"pool": "Int64"}) for name, rows in parts.items()}
    return {**found, "curves": curves(found["seeds"]), "thresholds": thresholds(found["seeds"])}


@dataclass(frozen=True)
class PoolPredictor:
    """The best predictor, of those linear in the query, that knows M training tasks and nothing else.

    It predicts phi_q . E[w_m | context], with w_m the best linear fit of task m's true values under its stationary
    distribution and the posterior over tasks, all equally likely before,

        p(m | context) ~ p0_m(s_1) prod_j P_m(s_{j+1} | s_j) exp(-|token_j - token of s_j in m|^2 / (2 TOLERANCE^2))

    where s_j is the state of task m nearest to the features and the reward seen at j. Features and rewards are free of
    noise: a training task is recognised with certainty, and a new one is taken for the nearest.
    """

    process: MarkovRewardProcess  # batch axes (seeds, M)
    weights: Float[Tensor, "seeds M d"]

    @classmethod
    def of(cls, process: MarkovRewardProcess, layout: TokenLayout) -> PoolPredictor:
        """Knows the tasks of a batch."""
        shortest = torch.zeros(*process.reward.shape[:2], 2)
        prompt = evaluation_prompt(process, shortest, layout).to(torch.float64)
        return cls(process, least_squares_weights(prompt.answers, prompt))

    def __call__(self, prompt: Prompt) -> Trace:
        values = self.predict(prompt)
        return Trace(torch.stack([torch.zeros_like(values), values]))

    def predict(self, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
        per_task = self.process.reward.numel() * prompt.context.shape[-2]
        batches = torch.arange(prompt.tokens.shape[1]).split(max(1, LARGEST_BATCH // per_task))
        posterior = torch.cat([self.log_likelihood(prompt.select(tasks)).softmax(-1) for tasks in batches], 1)
        return prompt.layout.read(prompt.query_tokens, "features") @ (posterior @ self.weights)[..., None]

    def log_likelihood(self, prompt: Prompt) -> Float[Tensor, "seeds tasks M"]:
        """Of every context under every task of the pool, up to a constant of the context."""
        layout, process = prompt.layout, self.process
        seen = torch.cat([layout.read(prompt.context, name) for name in ("features", "reward")], -1)
        known = torch.cat([process.features, process.reward[..., None]], -1).to(seen).transpose(1, 2)
        n_seeds, n_states, size = known.shape[:3]  # states first: a minimum over the last axis would be slow
        distance = _square_distance(seen.flatten(1, 2).expand(n_seeds, -1, -1), known.flatten(1, 2))
        distance, state = distance.view(n_seeds, *seen.shape[1:3], n_states, size).min(3)  # [seeds, tasks, n, M]
        # a finite stand-in for impossible moves: a new task makes some under every task of the pool
        law, initial = (x.to(seen).log().clamp(min=-100.0) for x in (process.transition, process.initial))
        moves = (state[:, :, :-1] * n_states + state[:, :, 1:]).flatten(1, 2)
        path = law.flatten(2).mT.gather(1, moves).unflatten(1, (-1, seen.shape[2] - 1)).sum(2)
        return initial.mT.gather(1, state[:, :, 0]) + path - distance.sum(2) / (2 * TOLERANCE**2)


def _square_distance(a: Float[Tensor, "seeds m k"], b: Float[Tensor, "seeds n k"]) -> Float[Tensor, "seeds m n"]:
    squares = a.square().sum(-1)[..., None] + b.square().sum(-1)[..., None, :]
    return (squares - 2 * a @ b.mT).clamp(min=0)


def measure(subject: TrainedSubject) -> dict[str, pd.DataFrame]:
    """One trained ensemble by seed, on new tasks (target "new") and on those of its own training ("pool").

    Table answers: the verdicts on new tasks. Table seeds, by metric: skill, 1 - MSVE / MSVE of predicting zero, of the
    network ("subject") and of every rival; disagreement with every rival, medians over tasks (rivals have the constants
    that the verdict fitted, on other new tasks); iws, the published score against batch TD with the reference's step
    size, that of the fitted myopic learner, and ("pool") that of the network against the pool predictor; nearest, 1 at
    the rival nearest on new tasks.
    """
    model, settings = subject.model(), subject.settings
    anywhere = replace(settings, n_tasks=None, fixed=())
    examination = examined(model, anywhere)
    fits = examination.rounds[0].fits
    rivals: dict[str, Learner] = {name: fits[name].learner for name in RIVALS}
    new = held_out_prompt(anywhere, model, HELD_OUT_TASKS, f"{ANALYSIS}/{HELD_OUT_TASKS}")
    axes = {"seed": subject.seeds}
    own, pool = training_tasks(subject, model.layout)
    few, tables = slice(0, RECOGNISED_TASKS), []
    measured = {"new": score(model, rivals, new), "pool": score(model, rivals, own)}
    for target, prompt in (("new", new), ("pool", own)):
        measured[target] = (score(model, {POOL: pool}, prompt.select(few)) if pool else {}) | measured[target]
        for (metric, name), values in measured[target].items():
            tables.append(tidy(values, axes, learner=name, metric=metric, target=target))
    reference = TD0(settings.n_layers, subject.record.step_size[-1, subject.seeds, None, None].double(), settings.gamma)
    pairs = [("subject", "new", model, reference, new), ("myopic", "new", rivals["myopic"], reference, new)]
    pairs += [(POOL, "pool", model, pool, own.select(few))] if pool else []
    for name, target, first, second, prompt in pairs:
        similarity = implicit_weight_similarity(first, second, prompt).detach().expand(len(subject.seeds), -1)
        tables.append(tidy(similarity.mean(-1), axes, learner=name, metric="iws", target=target))
    found = nearest({name: left for (metric, name), left in measured["new"].items() if metric == "disagreement"})
    learners = sorted(set(found))
    is_nearest = np.equal.outer(learners, found).astype(float)
    tables.append(tidy(is_nearest, {"learner": learners, **axes}, metric="nearest", target="new"))
    return {"seeds": pd.concat(tables, ignore_index=True), "answers": answers(examination, subject.seeds)}


def examined(model: LinearTransformer, settings: SubjectSettings) -> Examination:
    """What `learnscope inspect` would do with the ensemble, on tasks of these settings."""
    subject = Subject.of(model)
    source, layout = subject_source(settings), model.layout
    families = candidates(source, layout, looped=subject.can_loop, context_length=settings.context_length)
    return examine(
        subject,
        families,
        prompts_from(layout),
        fitting_tasks=FITTING_TASKS,
        held_out_tasks=HELD_OUT_TASKS,
        starts=read_weights(model).starts(),
    )


def answers(examination: Examination, seeds: Sequence[int]) -> pd.DataFrame:
    """A row per seed: outcome, the learners that are named, why, and what the nearest leaves unexplained (value)."""
    verdicts = examination.verdicts
    table = tidy([verdict.noise for verdict in verdicts], {"seed": seeds}, metric="noise", target="new")
    learners = [", ".join(verdict.learners) for verdict in verdicts]
    return table.assign(learner=learners, outcome=[v.outcome for v in verdicts], note=[v.note for v in verdicts])


def training_tasks(subject: TrainedSubject, layout: TokenLayout) -> tuple[Prompt, PoolPredictor | None]:
    """New contexts of training tasks, batch axes (seeds, tasks), and who knows the pool (None where it has no end)."""
    source, n = subject_source(subject.settings), HELD_OUT_TASKS
    assert isinstance(source, TaskFamily)  # else `run` has refused
    draws = uniforms(subject.seeds, f"{ANALYSIS}/pool/rollout", 0, n, subject.settings.context_length + 1)
    if source.n_tasks is None and len(source.fixed) < 3:
        fresh = source.sample(subject.seeds, f"{ANALYSIS}/pool", 0, n)
        return evaluation_prompt(fresh, draws, layout).to(torch.float64), None
    size = source.n_tasks or 1  # with every component fixed there is one task
    pool = source.sample(subject.seeds, "pool", 0, size)
    picked = pool.pick((uniforms(subject.seeds, f"{ANALYSIS}/pick", 0, n) * size).long())
    return evaluation_prompt(picked, draws, layout).to(torch.float64), PoolPredictor.of(pool, layout)


@torch.no_grad()
def score(
    model: LinearTransformer, rivals: Mapping[str, Learner], prompt: Prompt
) -> dict[tuple[str, str], Float[Tensor, " seeds"]]:
    """Skill of the network and of every rival, and the median disagreement between them, by (metric, learner).

    Prompts may have batch axes (seeds, tasks) or (1, tasks); tasks on which network or rival diverges are left out.
    """
    f = predict(model, prompt)
    kept = converges(f, prompt)

    def skill(values: Tensor, sound: Tensor) -> Tensor:
        error, floor = (square_mean(x, prompt) for x in (prompt.answers - values, prompt.answers.expand_as(values)))
        return 1 - error.where(sound, 0.0).sum(-1) / floor.where(sound, 0.0).sum(-1)

    found = {("skill", "subject"): skill(f, kept)}
    for name, rival in rivals.items():
        g = rival.predict(prompt).expand_as(f)
        sound = kept & converges(g, prompt)
        found["disagreement", name] = disagreement(f, g, prompt).where(sound, torch.nan).nanquantile(0.5, -1)
        found["skill", name] = skill(g, sound)
    return found


def nearest(disagreement: Mapping[str, Float[Tensor, " seeds"]]) -> list[str]:
    """Per seed the rival that leaves least unexplained, or "none" where that is more than STRANGER."""
    least, which = torch.stack(list(disagreement.values())).nan_to_num(nan=torch.inf).min(0)
    names = np.array([*disagreement])[which.numpy()]
    return np.where(least.numpy() > STRANGER, "none", names).tolist()


def curves(seeds: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds with their intervals; of `nearest` the share of seeds."""
    tables, keys = [], ["subject", "pool", "fixed", "target", "learner", "metric"]
    for labels, rows in seeds.groupby(keys, sort=False, dropna=False):
        named, values = dict(zip(keys, labels, strict=True)), rows["value"].to_numpy()
        middle = task_interval(values[None])
        if named["metric"] == "nearest":
            middle = Interval(values.mean(), np.nan, np.nan)
        ends = {"low": middle.low, "high": middle.high}
        tables.append(tidy([middle.value], {"n_seeds": [len(rows)]}, analysis=ANALYSIS, **ends, **named))
    return pd.concat(tables, ignore_index=True).astype({"pool": "Int64"})


def thresholds(seeds: pd.DataFrame) -> pd.DataFrame:
    """How many training tasks bring half of what unlimited ones do (`half_way`), per variation, of two things:

    learner "subject": the network's skill on new tasks; learner "td-plus-plus": the share of the network that TD++
    explains there, 1 - disagreement. The 95 % interval resamples seeds (percentile bootstrap).
    """
    own = seeds[seeds["fixed"] == ""].assign(pool=lambda table: table["pool"].astype(float).fillna(np.inf))
    scores = {
        "subject": select(own, metric="skill", learner="subject", target="new"),
        PLUS: select(own, metric="disagreement", learner=PLUS, target="new").assign(value=lambda t: 1 - t["value"]),
    }
    tables = []
    for (learner, score), name in product(scores.items(), own["subject"].unique()):
        table = select(score, subject=name).pivot_table("value", "seed", "pool").dropna()
        pools, values = table.columns.to_numpy(), table.to_numpy()
        resamples = np.random.default_rng(0).integers(len(values), size=(N_RESAMPLES, len(values)))
        spread = half_way(values[resamples], pools)
        low, high = np.quantile(spread, [0.025, 0.975], method="inverted_cdf")
        labels = {"subject": name, "learner": learner, "metric": "threshold", "low": low, "high": high}
        found = half_way(values, pools)
        tables.append(tidy([found], {"n_seeds": [len(values)]}, analysis=ANALYSIS, **labels))
    return pd.concat(tables, ignore_index=True)


def half_way(score: Float[np.ndarray, "*batch seeds pools"], pools: Float[np.ndarray, " pools"]) -> np.ndarray:
    """The number of tasks from which on the median over seeds stays above half of the last, unlimited pool's.

    Between two pools the median is taken as linear in the logarithm of their size. The smallest pool where that is
    enough; infinite where no finite one is, or where unlimited tasks bring nothing.
    """
    median = np.median(score, axis=-2)
    half = median[..., -1] / 2
    enough = (median >= half[..., None]) & (half[..., None] > 0)
    lasting = np.logical_and.accumulate(enough[..., ::-1], axis=-1)[..., ::-1]
    first = lasting.argmax(-1)
    before = np.maximum(first - 1, 0)
    below, above = (np.take_along_axis(median, place[..., None], -1)[..., 0] for place in (before, first))
    share = np.divide(half - below, above - below, out=np.zeros_like(half), where=first > 0)
    logs = np.log2(np.where(np.isfinite(pools), pools, 1.0))
    found = 2 ** (logs[before] + share * (logs[first] - logs[before]))
    return np.where(lasting.any(-1) & np.isfinite(pools[first]), found, np.inf)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Skill, similarity, memorisation, nearest rival and verdicts by pool size and fixed component; the thresholds."""
    curves, answers = (
        tables[name].assign(pool=lambda table: table["pool"].astype(object).fillna("unlimited"))
        for name in ("curves", "answers")
    )
    shares = curves[curves["metric"] == "nearest"]
    measures = curves[curves["metric"] != "nearest"]
    key = measures["metric"] + " " + measures["learner"] + " " + measures["target"]
    keys = ["subject", "pool", "fixed"]
    table = measures.assign(key=key).pivot_table("value", keys, "key", sort=False)
    table = table.reindex(columns=list(SUMMARISED))
    lines = [
        "medians over seeds; disagreement is with the network",
        f"  {'':12}{'tasks':>10}{'fixed':>10}" + "".join(f"{title:>14}" for title in SUMMARISED.values()) + "  nearest",
    ]
    for (subject, pool, fixed), row in table.iterrows():
        labels = {"subject": subject, "pool": pool, "fixed": fixed}
        mine = select(shares, **labels)
        nearest = ", ".join(f"{name} {share:.0%}" for name, share in zip(mine["learner"], mine["value"], strict=True))
        numbers = "".join(f"{value:14.3f}" for value in row)
        lines.append(f"  {subject:12}{pool!s:>10}{fixed:>10}{numbers}  {nearest}")
        lines.append(f"{'':34}verdicts: {verdict_counts(select(answers, **labels))}")
    for row in tables["thresholds"].itertuples():
        value, low, high = map(_tasks, (row.value, row.low, row.high))
        lines.append(
            f"  {row.subject}: half of the unlimited {BROUGHT[row.learner]} on new tasks takes {value} tasks "
            f"(95 % interval over {row.n_seeds} seeds: {low} to {high})"
        )
    return "\n".join(lines)


def _tasks(number: float) -> str:
    return f"{number:.0f}" if np.isfinite(number) else "unlimited"
