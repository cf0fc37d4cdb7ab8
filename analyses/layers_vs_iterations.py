"""Do a network's layers count an algorithm's iterations? Best-match curves (arXiv 2310.17086), on known networks.

There a layer is matched with the iterate whose errors are most like its own. A match that grows linearly with depth was
taken to say that the network converges as fast as the algorithm, one that grows exponentially that it is exponentially
faster; so softmax transformers were said to run a second-order method, such as Newton's. Here the criterion meets
networks whose algorithm is known. GD++ is linear in Newton's iterations, and exponential in those of gradient descent:
after L layers its error is a polynomial of degree (3^L - 1) / 2 of the covariance, after k Newton steps one of degree
2^(k + 1). With the constants of Newton and Schulz a layer multiplies small eigenvalues by 9/4, and a Newton step from
M_0 ~ S their squares by 2: that is 2 log2(9/4) = 2.3 steps a layer at first; both are quadratic, one step a layer, in
the end. What tells them apart is how much of a layer's error the nearest iterate leaves unexplained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from algorithms.gradient_descent import GD, GDPlusPlus
from algorithms.learner import Trace
from algorithms.least_squares import ConjugateGradient, Newton
from algorithms.newton_schulz import newton_schulz_steps
from algorithms.optima import scalar_optimum, spectra
from analyses.configs import LayersVsIterations
from analyses.tables import select, tidy
from models.artifacts import run_folder
from models.config import LinearTransformerConfig, RegressionTraining
from models.linear import LinearTransformer
from models.regression_constructions import gd_plus_plus, scaled_identity
from models.train_regression import train_regression
from probes.best_match import (
    ROUNDING,
    best_match,
    matched_iterations,
    relative_error,
    similarity_of_errors,
    similarity_of_weights,
    unexplained,
)
from probes.lens import read_lens
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily

ANALYSIS = "layers-vs-iterations"
NETWORK, BY_DEPTH = "GD++ network", "best GD++ network of each depth"
TUNING_CONTEXTS = 1000
CURVES = ("best_match", "matched_iterations")


def run(config: LayersVsIterations) -> dict[str, pd.DataFrame]:
    """`similarity` by layer and iteration; `match` by layer; `growth` of the matches with depth; `degrees`.

    match: the best match by SimE and by SimW with their similarities, the iterations after which the error is as small,
    and the share of the layer's error that no iterate explains. growth: iterations per layer, and R^2 of a linear and
    of an exponential curve, means over seeds with 95 % intervals (t). Every seed reads prompts of its own.
    """
    family, layout = RegressionFamily(config.d_features), labelled_layout(config.d_features)
    contexts = spectra(family, config.context_length, TUNING_CONTEXTS)
    best = [scalar_optimum("gd-plus-plus", depth + 1, contexts) for depth in range(config.best_depth)]
    found: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    seeds = list(range(config.seeds))
    prompt = family.fresh_prompt(seeds, "layers", 0, config.n_tasks, config.context_length, layout)
    rivals = iterations(config, prompt)
    network = construction(*newton_schulz_steps(largest_eigenvalue(config), config.depth), config)
    subjects = {
        NETWORK: lens_trace(network, prompt),
        BY_DEPTH: by_depth([lens_trace(construction(each.steps, each.rewrites, config), prompt) for each in best]),
        "Newton": first(rivals["newton"], config.depth),
        "gradient descent": first(rivals["gd"], config.depth),
    }
    found += [compare(name, trace, rivals, seeds, prompt) for name, trace in subjects.items()]
    for n_layers in config.trained_layers:
        model, seeds = trained(config, n_layers)
        prompt = family.fresh_prompt(seeds, "layers", 0, config.n_tasks, config.context_length, layout)
        rivals = iterations(config, prompt)
        found.append(compare(f"trained, L = {n_layers}", lens_trace(model, prompt), rivals, seeds, prompt))
    similarity, match = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
    return {"similarity": similarity, "match": match, "growth": growth(match), "degrees": degrees(config.depth)}


def iterations(config: LayersVsIterations, prompt: Prompt) -> dict[str, Trace]:
    """Every rival's iterates from 0 on; GD++ with the constants of Newton and Schulz."""
    largest, d = largest_eigenvalue(config), config.d_features
    steps, rewrites = newton_schulz_steps(largest, config.depth)
    return {
        "gd": GD(config.gd_iterations, 1 / largest)(prompt),
        "gd-plus-plus": GDPlusPlus(config.depth, scaled_identity(steps[None], d), rewrites)(prompt),
        "newton": Newton(config.newton_iterations)(prompt),
        "conjugate-gradient": ConjugateGradient(d)(prompt),
    }


def largest_eigenvalue(config: LayersVsIterations) -> float:
    """Of a context's covariance, about: the upper edge of the law of Marchenko and Pastur."""
    return (1 + math.sqrt(config.d_features / config.context_length)) ** 2


def by_depth(traces: Sequence[Trace]) -> Trace:
    """The start that all share, and the last step of every trace."""
    parts = zip(*map(read, traces), strict=True)
    predictions, weights = (torch.stack([each[0][0], *(steps[-1] for steps in each)]) for each in parts)
    return Trace(predictions, weights)


def read(trace: Trace) -> tuple[Tensor, Tensor]:
    assert trace.weights is not None
    return trace.predictions, trace.weights


def first(trace: Trace, n_steps: int) -> Trace:
    """Its steps 0 ... n_steps."""
    predictions, weights = (x[: n_steps + 1] for x in read(trace))
    return Trace(predictions, weights)


def construction(
    steps: Float[Tensor, " layers"], rewrites: Float[Tensor, " rewrites"], config: LayersVsIterations
) -> LinearTransformer:
    """The network with these constants, once per seed; the last layer needs no rewrite."""
    rewrites = torch.nn.functional.pad(rewrites, (0, len(steps) - len(rewrites)))
    C, B = (scaled_identity(c.expand(config.seeds, -1), config.d_features) for c in (steps, rewrites))
    return gd_plus_plus(C, B, n_layers=len(steps))


def trained(config: LayersVsIterations, n_layers: int) -> tuple[LinearTransformer, list[int]]:
    """A network of the full family, trained on these tasks, and the seeds that did not diverge."""
    model = LinearTransformerConfig(n_layers, False, config.d_features, tokens="labelled")
    stages = ((60, config.train_prompts), (5, 10 * config.train_prompts))
    training = RegressionTraining("full", config.context_length, stages=stages)
    family = RegressionFamily(config.d_features)
    setting = {"model": model.to_json(), "training": asdict(training), "task": repr(family)}
    folder = run_folder(config.out, "regression", setting, range(config.seeds))
    record = train_regression(model, training, family, range(config.seeds), folder, device=config.device)
    seeds = [seed for seed in range(config.seeds) if seed not in record.diverged()]
    return LinearTransformer(model, record.P[-1, seeds].double(), record.Q[-1, seeds].double()), seeds


def lens_trace(model: LinearTransformer, prompt: Prompt) -> Trace:
    lens = read_lens(model, prompt)
    return Trace(lens.predictions, lens.weights)


def compare(
    name: str, subject: Trace, rivals: Mapping[str, Trace], seeds: Sequence[int], prompt: Prompt
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the tables `similarity` and `match` for one subject."""
    predictions, weights = read(subject)
    layers = list(range(len(predictions)))
    error = relative_error(predictions, prompt)
    errs = error.mT > ROUNDING  # what is left of a layer's error otherwise resembles nothing
    similar, matched = [], []
    for learner, rival in rivals.items():
        labels = {"analysis": ANALYSIS, "subject": name, "learner": learner}
        theirs, their_weights = read(rival)
        sime = similarity_of_errors(predictions, theirs, prompt)
        simw = similarity_of_weights(weights, their_weights)
        missed = unexplained(predictions, theirs, prompt)
        axes = {"seed": seeds, "layer": layers, "iteration": list(range(len(theirs)))}
        similar += [tidy(x, axes, metric=metric, **labels) for metric, x in (("sime", sime), ("simw", simw))]
        values = {
            "best_match": uncensored(best_match(sime), len(theirs)),
            "sime": largest(sime),
            "best_match_simw": uncensored(best_match(simw), len(theirs)),
            "simw": largest(simw),
            "matched_iterations": torch.from_numpy(matched_iterations(error, relative_error(theirs, prompt))),
            "unexplained": -largest(-missed),
        }
        axes.pop("iteration")
        matched += [tidy(x.where(errs, torch.nan), axes, metric=metric, **labels) for metric, x in values.items()]
    return pd.concat(similar, ignore_index=True), pd.concat(matched, ignore_index=True)


def largest(values: Float[Tensor, "seeds layers steps"]) -> Float[Tensor, "seeds layers"]:
    """Over the iterates, NaN left out; NaN where there is nothing else."""
    found = values.where(~values.isnan(), -torch.inf).amax(-1)
    return found.where(found > -torch.inf, torch.nan)


def uncensored(match: Float[Tensor, "seeds layers"], n_iterates: int) -> Float[Tensor, "seeds layers"]:
    """NaN where the best match is the last iterate that was run: a later one might match better."""
    return match.where(match < n_iterates - 1, torch.nan)


def growth(match: pd.DataFrame) -> pd.DataFrame:
    """How both curves grow with depth from the first layer on, where at least three layers have a match."""
    rows = []
    curves = match[match["metric"].isin(CURVES) & (match["layer"] > 0) & match["value"].notna()]
    for (subject, learner, curve), mine in curves.groupby(["subject", "learner", "metric"], sort=False):
        fits = [fit_growth(each["layer"], each["value"]) for _, each in mine.groupby("seed") if len(each) > 2]
        for metric in fits[0] if fits else ():
            values = np.array([fit[metric] for fit in fits])
            low, high = _interval(values)
            labels = {"analysis": ANALYSIS, "subject": subject, "learner": learner, "metric": metric}
            rows.append(tidy([values.mean()], {"target": [curve]}, low=low, high=high, **labels))
    return pd.concat(rows, ignore_index=True)


def fit_growth(layer: pd.Series, iterations: pd.Series) -> dict[str, float]:
    """Iterations per layer, and R^2 of iterations = a + b layer and of log2 (1 + iterations) = a + b layer."""
    x, k = layer.to_numpy(dtype=float), iterations.to_numpy(dtype=float)
    linear, exponential = (stats.linregress(x, y) for y in (k, np.log2(1 + k)))
    return {
        "per_layer": linear.slope,
        "r2_linear": linear.rvalue**2,
        "doublings_per_layer": exponential.slope,
        "r2_exponential": exponential.rvalue**2,
    }


def _interval(values: Float[np.ndarray, " seeds"]) -> tuple[float, float]:
    """95 % for the mean, by Student's t; NaN for one seed."""
    if len(values) < 2:
        return math.nan, math.nan
    margin = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - margin, values.mean() + margin


def degrees(depth: int) -> pd.DataFrame:
    """The degree of the error as a polynomial of S, and how many Newton steps have as high a one."""
    layer = np.arange(1, depth + 1)
    degree = {"gd": layer, "gd-plus-plus": (3**layer - 1) // 2, "newton": 2 ** (layer + 1)}
    tables = []
    for learner, values in degree.items():
        for metric, x in (("degree", values), ("newton_steps", np.log2(values) - 1)):
            tables.append(tidy(x, {"layer": layer.tolist()}, analysis=ANALYSIS, learner=learner, metric=metric))
    return pd.concat(tables, ignore_index=True)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """What the criterion says of every subject, and what the nearest iterates leave unexplained."""
    match, grown = tables["match"], tables["growth"]
    lines = [
        "by subject and algorithm: iterations with a layer's error, per layer [95 %], and R² of a linear and of an"
    ]
    lines += [
        "exponential curve; the least SimE at a best match, and what the nearest iterate leaves unexplained at most"
    ]
    for subject in match["subject"].unique():
        lines.append(f"{subject}:")
        for learner in match["learner"].unique():
            mine = select(match, subject=subject, learner=learner)
            by_layer = mine[mine["layer"] > 0].groupby(["metric", "layer"])["value"].mean()
            text = f"  {learner:18} "
            fit = select(grown, subject=subject, learner=learner, target="matched_iterations").set_index("metric")
            if len(fit):
                slope, linear, exponential = (fit.loc[name] for name in ("per_layer", "r2_linear", "r2_exponential"))
                text += f"{slope['value']:6.2f} [{slope['low']:.2f}, {slope['high']:.2f}], "
                text += f"{linear['value']:.3f} and {exponential['value']:.3f}; "
            lines.append(text + f"SimE {by_layer['sime'].min():.3f}, unexplained {by_layer['unexplained'].max():.2g}")
    return "\n".join(lines)
