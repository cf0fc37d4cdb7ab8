"""Does linear attention learn its training tasks by heart, or to solve new ones? Task diversity in linear regression.

As in arXiv 2306.15063: labels carry noise and training draws from a pool of M tasks. On these the posterior mean over
the pool (`PoolBayes`, dMMSE) is optimal, on new tasks ridge regression. Softmax transformers go from the first to the
second at thousands of tasks. Linear attention whose scores read the covariates alone (the full family of arXiv
2306.00297) predicts linearly in the labels. So it can never become the posterior mean: the best that it can be on its
own tasks is the best such predictor, `PoolRidge`, and for that M need only exceed the dimension to be ridge. With every
entry of P and Q free, scores read labels too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.examples import LinearLearner, Moments
from algorithms.fit import converges, disagreement, one_thread, square_mean
from algorithms.learner import Learner
from algorithms.least_squares import PoolBayes, Ridge, SmoothedPoolBayes
from analyses.configs import PoolBayesOrRidge
from analyses.parallel import in_parallel
from analyses.tables import select, tidy
from models.artifacts import is_complete, run_folder
from models.config import LinearTransformerConfig, RegressionTraining
from models.files import ArtifactError
from models.linear import LinearTransformer
from models.train_regression import RegressionRecord, train_regression
from probes.behaviour import Predictor, predict, task_interval
from tasks.errors import ConfigError
from tasks.layout import Prompt
from tasks.regression import RegressionFamily

ANALYSIS = "pool-bayes-or-ridge"
LAST_STEPS = 5  # of the training, on ten times as many prompts
FITTING_TASKS, HELD_OUT_TASKS = 100, 400
SUBJECT, RIDGE, POOL, POOL_RIDGE, SMOOTHED = "subject", "ridge", "pool-bayes", "pool-ridge", "smoothed-pool-bayes"
SMOOTHINGS = (0.0, *(2.0**k for k in range(-5, 4)))  # what smoothing is fitted among
LABEL_SCALE = 0.5
CLOSE = 1.1  # times the error on new tasks that unlimited training tasks lead to
LARGEST_BATCH = 2**22  # numbers in one table of tasks by pool
N_RESAMPLES = 1000


@dataclass(frozen=True)
class PoolRidge(LinearLearner):
    """Of all predictors linear in the labels the best on the tasks of a pool [seeds, n_tasks, d].

    Ridge with the second moment R = (1/M) sum_m w_m w_m^T of the pool in the place of the prior's covariance:
    w = R (S R + noise^2 / n I)^-1 C. For M -> infinity and w ~ N(0, I) it is ridge.
    """

    pool: Float[Tensor, "seeds n_tasks d"]
    noise: float

    def iterates(self, moments: Moments) -> list[Tensor]:
        covariance, cross, n = moments
        pool = self.pool.to(covariance)
        second = (pool.mT @ pool / pool.shape[1])[:, None, None]
        ridge = self.noise**2 / n * torch.eye(pool.shape[-1], dtype=pool.dtype)
        return [torch.zeros_like(cross), second @ torch.linalg.solve(covariance @ second + ridge, cross)]


@dataclass(frozen=True)
class Subject:
    """A trained ensemble: which entries of P and Q were free, and how many tasks it saw (None: unlimited)."""

    config: PoolBayesOrRidge
    parameters: str
    pool: int | None

    @property
    def model_config(self) -> LinearTransformerConfig:
        return LinearTransformerConfig(self.config.n_layers, False, self.config.d_features, tokens="labelled")

    @property
    def training(self) -> RegressionTraining:
        steps, prompts = self.config.steps, self.config.prompts
        stages = ((steps, prompts), (LAST_STEPS, 10 * prompts))
        return RegressionTraining(self.parameters, self.config.context_length, stages=stages)

    @property
    def family(self) -> RegressionFamily:
        return RegressionFamily(self.config.d_features, noise=self.config.noise, n_tasks=self.pool)

    @property
    def folder(self) -> Path:
        setting = {
            "model": self.model_config.to_json(),
            "training": asdict(self.training),
            "task": repr(self.family),
        }
        return run_folder(self.config.out, "regression", setting, range(self.config.seeds))

    def train(self) -> RegressionRecord:
        """Trains, or loads the run where a complete one stands."""
        c = self.config
        return train_regression(
            self.model_config, self.training, self.family, range(c.seeds), self.folder, device=c.device
        )

    def trained(self) -> tuple[LinearTransformer, list[int]]:
        """The ensemble in float64 and its seeds. Raises ArtifactError where all of them diverged."""
        record = self.train()
        diverged = record.diverged()
        seeds = [seed for seed in range(self.config.seeds) if seed not in diverged]
        if not seeds:
            raise ArtifactError(f"all seeds in {self.folder} diverged; lower --learning-rate and run again")
        P, Q = (weight[-1, seeds].double() for weight in (record.P, record.Q))
        return LinearTransformer(self.model_config, P, Q), seeds

    def rivals(self, seeds: Sequence[int]) -> dict[str, Learner]:
        """Those without free constants, told the noise, and the pool where there is one."""
        noise, n = self.config.noise, self.config.context_length
        found: dict[str, Learner] = {RIDGE: Ridge(noise**2 / n)}
        if self.pool is not None:
            pool = self.family.pool(seeds)
            found |= {POOL: PoolBayes(pool, noise), POOL_RIDGE: PoolRidge(pool, noise)}
        return found


def run(config: PoolBayesOrRidge) -> dict[str, pd.DataFrame]:
    """Tables seeds (every measure by seed), curves (medians over seeds) and thresholds.

    Subjects are the families of parameters; the index column pool is the number of training tasks (empty: unlimited).
    """
    if not config.noise > 0:
        raise ConfigError(f"noise is {config.noise}; allowed: a number above 0, for without it every rival is exact")
    subjects = [Subject(config, name, pool) for name in config.parameters for pool in (*config.pools, None)]
    missing = [(subject,) for subject in subjects if not is_complete(subject.folder)]
    in_parallel(Subject.train, missing, "training", "subject")
    labels = [{"subject": s.parameters, "pool": pd.array([s.pool], dtype="Int64")[0]} for s in subjects]
    rows = [measure(subject).assign(**label) for subject, label in zip(subjects, labels, strict=True)]
    seeds = pd.concat(rows, ignore_index=True).assign(analysis=ANALYSIS).astype({"pool": "Int64"})
    return {"seeds": seeds, "curves": curves(seeds), "thresholds": thresholds(seeds)}


@one_thread()
@torch.no_grad()
def measure(subject: Subject) -> pd.DataFrame:
    """One trained ensemble by seed, on new tasks (target "new") and on those of its pool ("pool").

    error: E (f - y)^2 / E y^2 over all tasks, y the answer without noise, of the network and of every rival;
    disagreement of the network with every rival, median over tasks; label-scaling: that of the network, or of a rival,
    with itself where labels are scaled by LABEL_SCALE and predictions scaled back, 0 for all that are linear in the
    labels; diverged: the share of tasks on which the network does, which all of these leave out. Smoothed Bayes is
    fitted to the network on other tasks of both kinds.
    """
    (model, seeds), family, n = subject.trained(), subject.family, subject.config.context_length
    rivals = subject.rivals(seeds)

    def prompts(purpose: str, n_tasks: int) -> dict[str, Prompt]:
        name, layout = f"{ANALYSIS}/{purpose}", model.layout
        found = {"new": family.fresh_prompt(seeds, name, 0, n_tasks, n, layout)}
        if subject.pool is not None:
            found["pool"] = family.pool_prompt(seeds, f"{name}/pool", 0, n_tasks, n, layout)
        return found

    if subject.pool is not None:
        fitting = list(prompts("fit", FITTING_TASKS).values())
        rivals[SMOOTHED] = fit_smoothing(model, family.pool(seeds), subject.config.noise, fitting)
    tables, axes = [], {"seed": seeds}
    for target, prompt in prompts("held-out", HELD_OUT_TASKS).items():
        f = predict(model, prompt)
        values = {SUBJECT: f} | {name: answer(rival, prompt) for name, rival in rivals.items()}
        scaled = scale_labels(prompt, LABEL_SCALE)
        back = {SUBJECT: predict(model, scaled)} | {name: answer(rival, scaled) for name, rival in rivals.items()}
        for name, g in values.items():
            found = {
                "error": relative_error(g, prompt),
                "label-scaling": typical(g, back[name] / LABEL_SCALE, prompt),
                **({} if name == SUBJECT else {"disagreement": typical(f, g, prompt)}),
            }
            tables += [tidy(value, axes, learner=name, metric=key, target=target) for key, value in found.items()]
        share = (~converges(f, prompt)).double().mean(-1)
        tables.append(tidy(share, axes, learner=SUBJECT, metric="diverged", target=target))
    return pd.concat(tables, ignore_index=True)


def fit_smoothing(
    model: Predictor, pool: Float[Tensor, "seeds n_tasks d"], noise: float, prompts: Sequence[Prompt]
) -> SmoothedPoolBayes:
    """Smoothed Bayes with the smoothing of SMOOTHINGS that is closest to each seed's network, over all prompts."""
    left = torch.zeros(len(SMOOTHINGS), len(pool), dtype=torch.float64)
    for prompt in prompts:
        f = predict(model, prompt)
        for i, smoothing in enumerate(SMOOTHINGS):
            rival = SmoothedPoolBayes(pool, noise, smoothing)
            left[i] += typical(f, answer(rival, prompt), prompt).nan_to_num()  # nothing to fit where all diverge
    return SmoothedPoolBayes(pool, noise, torch.tensor(SMOOTHINGS).double()[left.argmin(0)][:, None])


def answer(learner: Learner, prompt: Prompt) -> Float[Tensor, "seeds tasks queries 1"]:
    """The learner's predictions, few tasks at a time where it compares each with a whole pool."""
    per_task = len(prompt.tokens) * getattr(learner, "pool", prompt.tokens).shape[1] * prompt.layout.d_features
    batches = torch.arange(prompt.tokens.shape[1]).split(max(1, LARGEST_BATCH // per_task))
    return torch.cat([learner.predict(prompt.select(tasks)) for tasks in batches], 1)


def scale_labels(prompt: Prompt, factor: float) -> Prompt:
    """The same prompts with every label times a factor; answers stay."""
    scale = torch.ones(prompt.layout.width, dtype=prompt.tokens.dtype)
    scale[prompt.layout["label"]] = factor
    return replace(prompt, tokens=prompt.tokens * scale)


def relative_error(f: Float[Tensor, "seeds tasks queries 1"], prompt: Prompt) -> Float[Tensor, " seeds"]:
    """E (f - y)^2 / E y^2; tasks on which f diverges are left out, NaN where it does on all."""
    kept = converges(f, prompt)
    error, power = (square_mean(x, prompt).where(kept, 0.0).sum(-1) for x in (f - prompt.answers, prompt.answers))
    return error / power


def typical(
    f: Float[Tensor, "seeds tasks queries 1"], g: Float[Tensor, "seeds tasks queries 1"], prompt: Prompt
) -> Float[Tensor, " seeds"]:
    """The median disagreement over tasks; those on which one of the two diverges are left out, NaN where all are."""
    kept = converges(f, prompt) & converges(g, prompt)
    return disagreement(f, g, prompt).where(kept, torch.nan).nanquantile(0.5, -1)


def curves(seeds: pd.DataFrame) -> pd.DataFrame:
    """Medians over seeds with their intervals."""
    tables, keys = [], ["subject", "pool", "target", "learner", "metric"]
    for labels, rows in seeds.dropna(subset="value").groupby(keys, sort=False, dropna=False):
        middle = task_interval(rows["value"].to_numpy()[None])
        named = {**dict(zip(keys, labels, strict=True)), "low": middle.low, "high": middle.high}
        tables.append(tidy([middle.value], {"n_seeds": [len(rows)]}, analysis=ANALYSIS, **named))
    return pd.concat(tables, ignore_index=True).astype({"pool": "Int64"})


def thresholds(seeds: pd.DataFrame) -> pd.DataFrame:
    """Two numbers of training tasks per family of parameters, the smallest from which on, for the median over seeds,

    nearer-to-ridge: the network is nearer to ridge than to the posterior mean over its pool, on new tasks;
    generalises: its error on new tasks is at most CLOSE times the one that unlimited training tasks lead to.

    The interval resamples seeds. Infinite where only unlimited tasks do.
    """
    new = select(seeds, target="new").assign(pool=lambda table: table["pool"].astype(float).fillna(np.inf))
    compared = (("disagreement", RIDGE), ("disagreement", POOL), ("error", SUBJECT))
    pools, seed = np.sort(new["pool"].unique()), new["seed"].unique()
    resamples = np.random.default_rng(0).integers(len(seed), size=(N_RESAMPLES, len(seed)))
    tables = []
    for name in new["subject"].unique():
        measures = []
        for metric, learner in compared:
            rows = select(new, subject=name, metric=metric, learner=learner)
            table = rows.pivot(index="seed", columns="pool", values="value").reindex(index=seed, columns=pools)
            # who diverged is infinitely far from all, and so is who would know unlimited tasks by heart
            measures.append(table.fillna(np.inf).to_numpy())
        whole, resampled = (_criteria(measures, picked) for picked in (np.arange(len(seed)), resamples))
        for metric, holds in whole.items():
            spread = smallest_pool(resampled[metric], pools)
            low, high = np.quantile(spread, [0.025, 0.975], method="inverted_cdf")
            labels = {"analysis": ANALYSIS, "subject": name, "metric": metric, "low": low, "high": high}
            tables.append(tidy([smallest_pool(holds, pools)], {"n_seeds": [len(seed)]}, **labels))
    return pd.concat(tables, ignore_index=True)


def _criteria(measures: Sequence[np.ndarray], picked: np.ndarray) -> dict[str, np.ndarray]:
    """Where they hold, by pool, for the seeds picked; measures are those compared, each [seeds, pools]."""
    to_ridge, to_bayes, missed = (np.median(values[picked], axis=-2) for values in measures)
    return {"nearer-to-ridge": to_ridge < to_bayes, "generalises": missed <= CLOSE * missed[..., -1:]}


def smallest_pool(
    holds: Bool[np.ndarray, "*batch pools"], pools: Float[np.ndarray, " pools"]
) -> Float[np.ndarray, "*batch"]:
    """The first pool from which on all hold, the last one (unlimited) where none of the others does."""
    lasting = np.logical_and.accumulate(holds[..., ::-1], axis=-1)[..., ::-1]
    return np.where(lasting.any(-1), pools[lasting.argmax(-1)], pools[-1])


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Errors, and what each rival leaves unexplained, by family and number of training tasks; the thresholds."""
    curves = tables["curves"].assign(pool=lambda table: table["pool"].astype(object).fillna("unlimited"))
    shown = {
        f"error {SUBJECT}": "error",
        f"error {RIDGE}": "of ridge",
        f"disagreement {POOL}": "pool Bayes",
        f"disagreement {SMOOTHED}": "smoothed",
        f"disagreement {POOL_RIDGE}": "pool ridge",
        f"disagreement {RIDGE}": "ridge",
        f"label-scaling {SUBJECT}": "scaling",
        f"diverged {SUBJECT}": "diverged",
    }
    lines = ["Medians over seeds: relative error, what rivals leave of the network, and its response to scaled labels"]
    for name, target in pd.MultiIndex.from_frame(curves[["subject", "target"]].drop_duplicates()):
        mine = select(curves, subject=name, target=target)
        table = mine.assign(column=mine["metric"] + " " + mine["learner"]).pivot_table(
            "value", "pool", "column", sort=False
        )
        table = table.reindex(columns=list(shown)).rename(columns=shown).rename_axis(None, axis=1)
        lines += ["", f"{name}, {'new tasks' if target == 'new' else 'tasks of its pool'}"]
        lines.append(table.to_string(float_format="{:.4f}".format, na_rep=""))
    lines.append("")
    for row in tables["thresholds"].itertuples():
        lines.append(f"{row.subject}: {row.metric} from {_tasks(row.value)} on [{_tasks(row.low)}, {_tasks(row.high)}]")
    return "\n".join(lines)


def _tasks(pool: float) -> str:
    return f"{pool:.0f}" if np.isfinite(pool) else "unlimited"
