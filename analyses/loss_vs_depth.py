"""How does the loss fall with depth? Trained networks, every rival's own optimum, and the published baselines.

The baselines of arXiv 2306.00297 are weaker than gradient descent has to be: all steps share one size from a coarse
grid, tuned on 5000 prompts, and one of the n examples is left out. They are re-created here beside the rivals' optima;
momentum and Chebyshev's iteration, preconditioned by Sigma^-1, say what two numbers shared by all steps can reach.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from algorithms.accelerated import Chebyshev, Momentum
from algorithms.fit import one_thread
from algorithms.optima import accelerated_optimum, accelerated_polynomial, loss
from analyses.configs import LossVsDepth, PreconditionedGDEmergence
from analyses.regression_subjects import RIVALS, RegressionSubject, construction, contexts, errors, rival_optima
from analyses.single_layer_optimum import spectra
from analyses.tables import select, tidy

ANALYSIS = "loss-vs-depth"
GRID = (0.001, 0.002, 0.004, 0.008, 0.01, 0.02, 0.04, 0.08, 0.16)  # of the authors, times the sum over examples
TUNED_ON = 5000
ACCELERATED = {"momentum": Momentum, "chebyshev": Chebyshev}
BASELINES = {"gd-published": False, "preconditioned-gd-published": True}  # whether Sigma^-1 preconditions


def run(config: LossVsDepth) -> dict[str, pd.DataFrame]:
    """Table losses: by depth (index column depth) and family of parameters (subject)."""
    depths = range(1, config.n_layers + 1)
    tables = [losses(config, depth, config.context_length).assign(depth=depth) for depth in depths]
    return {"losses": pd.concat(tables, ignore_index=True).assign(analysis=ANALYSIS)}


def losses(config: PreconditionedGDEmergence, n_layers: int, context_length: int) -> pd.DataFrame:
    """The loss of the trained networks of every family (learner network, by seed), and of the rivals and published
    baselines (subject empty), all on the same prompts."""
    spectrum, tables = spectra(config.d_features)["published"], []

    def subject_of(parameters: str) -> RegressionSubject:
        return RegressionSubject(config, n_layers, parameters, context_length, spectrum, "inverse-covariance")

    for name in config.parameters:
        subject = subject_of(name)
        _record, model, seeds = subject.trained()
        found = errors(subject, {"network": model}, "network")
        mean, half = found.mean["network"], found.half_width["network"]
        axes = {"seed": seeds}
        tables.append(tidy(mean, axes, low=mean - half, high=mean + half, subject=name, learner="network"))
    return pd.concat([*tables, rival_losses(subject_of("sparse"))], ignore_index=True).assign(metric="loss")


def rival_losses(subject: RegressionSubject) -> pd.DataFrame:
    """Rivals at their own optimum on the networks' prompts; those with memory and the baselines in expectation."""
    networks = {name: construction(subject, name, optimum) for name, optimum in rival_optima(subject).items()}
    found = errors(subject, networks, "gd")
    tables = []
    for name in RIVALS:
        mean, half = found.mean[name], found.half_width[name]
        tables.append(tidy(mean, {"seed": [pd.NA]}, low=mean - half, high=mean + half, learner=name))
    for name, kind in ACCELERATED.items():
        tables.append(tidy(accelerated_loss(subject, kind)[None], {"seed": [pd.NA]}, learner=name))
    for name, whitened in BASELINES.items():
        value = published_baseline(subject, preconditioned=whitened)
        tables.append(tidy(value[None], {"seed": [pd.NA]}, learner=name))
    return pd.concat(tables, ignore_index=True)


@one_thread()
def accelerated_loss(subject: RegressionSubject, kind: type[Momentum | Chebyshev]) -> Tensor:
    """The loss of momentum or Chebyshev's iteration with its two best constants, preconditioned by Sigma^-1."""
    law = contexts(subject, preconditioned=True)
    best = accelerated_optimum(kind, subject.n_layers, law)
    return law.losses(accelerated_polynomial(best, law.eigenvalues)).mean()


@one_thread()
def published_baseline(subject: RegressionSubject, *, preconditioned: bool) -> Tensor:
    """The loss of the authors' gradient descent: w <- w + eta sum_j (y_j - w.x_j) x_j over n - 1 of the n examples."""
    n = subject.context_length - 1
    law = contexts(subject, preconditioned=preconditioned, context_length=n)
    tuning = type(law)(law.eigenvalues[:TUNED_ON], law.coupling[:TUNED_ON])
    rewrites = torch.zeros(0, dtype=torch.float64)
    steps = [torch.full((subject.n_layers,), n * eta, dtype=torch.float64) for eta in GRID]
    best = min(steps, key=lambda tried: loss(tuning, tried, rewrites).item())
    return loss(law, best, rewrites)


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """Median losses by depth."""
    return loss_table(tables["losses"], "depth")


def loss_table(losses: pd.DataFrame, index: str) -> str:
    """Median losses over seeds: a row for every network family, rival and baseline, a column for every `index`."""
    named = losses.assign(
        who=losses["learner"].where(losses["subject"].isna(), "network, " + losses["subject"].astype(object).fillna(""))
    )
    table = named.groupby(["who", index], sort=False)["value"].median().unstack()
    seeds = select(losses, learner="network")["seed"].nunique()
    head = f"Loss by {index}: networks (median of {seeds} seeds), rivals at their own optimum, published baselines"
    return f"{head}\n{table.rename_axis(None).to_string(float_format='{:.3g}'.format)}"
