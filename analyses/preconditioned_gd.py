"""Do L trained layers run preconditioned gradient descent, or GD++? Weights as matrices, distances, losses.

In the sparse family Lemma 1 makes a layer a step of gradient descent preconditioned by A_l; in the full family it also
moves the covariates by B_l. With x ~ N(0, Sigma) and w ~ N(0, Sigma^-1), Theorems 3 and 4 find nearly stationary points
at A_l = a_l Sigma^-1, B_l = b_l I. A trained network is compared with these, and its loss with every rival's own
optimum on the same prompts. Weights are shown after whitening, Sigma^1/2 A_l Sigma^1/2 and Sigma^-1/2 B_l Sigma^1/2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.optima import Optimum, symmetric_power
from analyses.configs import PreconditionedGDEmergence
from analyses.regression_subjects import RIVALS, RegressionSubject, construction, errors, rival_optima
from analyses.single_layer_optimum import spectra
from analyses.tables import select, tidy
from models.train_regression import RegressionRecord
from tasks.layout import labelled_layout

ANALYSIS = "preconditioned-gd"
SUBJECT = "network"
TARGETS = {"sparse": "preconditioned-gd", "full": "gd-plus-plus", "free": "gd-plus-plus"}  # what Theorems 3 and 4 say
A, B, RAW = "A", "B", "A-unwhitened"

# Of arXiv 2306.00297 with three layers, from the outputs of its notebooks (L-BFGS excepted): the full family's a_l, b_l
# in units of Sigma^-1 and I, the end of Dist, and its loss; d = 5, n = 20.
PUBLISHED = {
    ("constant", A): (0.38, 2.40, 9.55),
    ("constant", B): (0.90, 0.565),
    ("dist", A): (0.035, 0.01, 0.01),
    ("dist", B): (0.015, 0.005),
    ("loss", ""): (6.75e-4,),
}


def run(config: PreconditionedGDEmergence) -> dict[str, pd.DataFrame]:
    """Tables weights (entries of the whitened matrices), dist (over training), constants and losses.

    Subjects are the families of parameters; layers count from 1.
    """
    parts: dict[str, list[pd.DataFrame]] = {"weights": [], "dist": [], "constants": [], "losses": []}
    optima: dict[str, Optimum] = {}
    spectrum = spectra(config.d_features)["published"]
    for name in config.parameters:
        subject = RegressionSubject(
            config, config.n_layers, name, config.context_length, spectrum, "inverse-covariance"
        )
        record, _model, seeds = subject.trained()
        optima = optima or rival_optima(subject)
        found = {
            "weights": weights(subject, record, seeds),
            "dist": dist_over_training(subject, record, seeds),
            "constants": constants(subject, record, seeds, optima[TARGETS[name]]),
            "losses": losses(subject, optima),
        }
        for key, table in found.items():
            parts[key].append(table.assign(analysis=ANALYSIS, subject=name))
    tables = {key: pd.concat(tables, ignore_index=True) for key, tables in parts.items()}
    return tables | {"published": published(config)}


def blocks(subject: RegressionSubject, P: Tensor, Q: Tensor) -> dict[str, Float[Tensor, "*batch layers d d"]]:
    """The whitened A_l and B_l, and A_l itself, of weights [..., layers, heads, width, width].

    A gauge leaves P[label, label] one: A_l is that entry times minus Q's block, and B_l P's block over it.
    """
    layout = labelled_layout(subject.settings.d_features)
    gauge = layout.block(P, "label", "label").double()[..., 0, :, :]
    a = -gauge * layout.block(Q, "features", "features").double()[..., 0, :, :].mT
    b = layout.block(P, "features", "features").double()[..., 0, :, :] / gauge
    root, inverse = (symmetric_power(subject.covariance, power) for power in (0.5, -0.5))
    return {A: root @ a @ root, B: inverse @ b @ root, RAW: a}


def dist(matrix: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """min over c of |M - c I| / |M|, zero for multiples of the identity and at most one (section 5)."""
    middle = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)
    rest = matrix - middle[..., None, None] * torch.eye(matrix.shape[-1]).to(matrix)
    return rest.norm(dim=(-2, -1)) / matrix.norm(dim=(-2, -1))


def trained_blocks(subject: RegressionSubject) -> dict[str, int]:
    """The blocks that the family trains and the prediction feels, and of how many layers: the last B is idle."""
    return {A: subject.n_layers, **({} if subject.parameters == "sparse" else {B: subject.n_layers - 1})}


def weights(subject: RegressionSubject, record: RegressionRecord, seeds: list[int]) -> pd.DataFrame:
    """Entries of the trained matrices, by seed, layer, row and column."""
    found, d = blocks(subject, record.P[-1, seeds], record.Q[-1, seeds]), range(subject.settings.d_features)
    return pd.concat(
        [
            tidy(
                found[block][:, :count],
                {"seed": seeds, "layer": range(1, count + 1), "row": d, "column": d},
                target=block,
                metric="entry",
            )
            for block, count in trained_blocks(subject).items()
        ],
        ignore_index=True,
    )


def dist_over_training(subject: RegressionSubject, record: RegressionRecord, seeds: list[int]) -> pd.DataFrame:
    """Dist of the whitened matrices and of A_l itself after every step, beside the training loss."""
    found, steps = blocks(subject, record.P[:, seeds], record.Q[:, seeds]), record.step.tolist()
    tables = [tidy(record.loss[:, seeds], {"step": steps, "seed": seeds}, metric="training-loss")]
    for block, count in (trained_blocks(subject) | {RAW: subject.n_layers}).items():
        axes = {"step": steps, "seed": seeds, "layer": range(1, count + 1)}
        tables.append(tidy(dist(found[block][:, :, :count]), axes, target=block, metric="dist"))
    return pd.concat(tables, ignore_index=True)


def constants(subject: RegressionSubject, record: RegressionRecord, seeds: list[int], optimum: Optimum) -> pd.DataFrame:
    """constant: tr / d of every whitened matrix, of the network and of the best scalar rival; error: how far the whole
    matrix is from that rival's, relative. Layers of the sparse family commute: both are put in rising order."""
    found, tables = blocks(subject, record.P[-1, seeds], record.Q[-1, seeds]), []
    best = {A: optimum.steps, B: optimum.rewrites}
    identity = torch.eye(subject.settings.d_features, dtype=torch.float64)
    for block, count in trained_blocks(subject).items():
        matrices, target = found[block][:, :count], best[block]
        if subject.parameters == "sparse":
            order = matrices.diagonal(dim1=-2, dim2=-1).mean(-1).argsort(-1)
            matrices, target = matrices.take_along_dim(order[..., None, None], 1), target.sort().values
        expected = target[:, None, None] * identity
        axes = {"seed": seeds, "layer": range(1, count + 1)}
        error = (matrices - expected).norm(dim=(-2, -1)) / expected.norm(dim=(-2, -1))
        middle = matrices.diagonal(dim1=-2, dim2=-1).mean(-1)
        tables += [
            tidy(middle, axes, target=block, learner=SUBJECT, metric="constant"),
            tidy(error, axes, target=block, learner=SUBJECT, metric="error"),
            tidy(
                target, {"layer": axes["layer"]}, target=block, learner=TARGETS[subject.parameters], metric="constant"
            ),
        ]
    return pd.concat(tables, ignore_index=True)


def losses(subject: RegressionSubject, optima: Mapping[str, Optimum]) -> pd.DataFrame:
    """loss of the network and of every rival at its own optimum on common prompts; excess of every rival over the
    network, paired; ratio of the network's loss to the rival's."""
    _record, model, seeds = subject.trained()
    networks = {SUBJECT: model} | {name: construction(subject, name, optimum) for name, optimum in optima.items()}
    found, axes, tables = errors(subject, networks, SUBJECT), {"seed": seeds}, []
    for name in networks:
        mean, half = found.mean[name], found.half_width[name]
        tables.append(tidy(mean, axes, low=mean - half, high=mean + half, learner=name, metric="loss"))
        if name != SUBJECT:
            gap, half = found.difference[name], found.difference_half_width[name]
            tables.append(tidy(gap, axes, low=gap - half, high=gap + half, learner=name, metric="excess"))
            tables.append(tidy(found.mean[SUBJECT] / mean, axes, learner=name, metric="ratio"))
    return pd.concat(tables, ignore_index=True)


def published(config: PreconditionedGDEmergence) -> pd.DataFrame:
    """What the notebooks show for the full family; empty for any other setting than theirs."""
    same = (config.n_layers, config.d_features, config.context_length) == (3, 5, 20) and "full" in config.parameters
    tables = [
        tidy(np.array(values), {"layer": range(1, len(values) + 1)}, target=block, metric=metric)
        for (metric, block), values in PUBLISHED.items()
    ]
    table = pd.concat(tables, ignore_index=True).assign(analysis=ANALYSIS, subject="full")
    return table if same else table.iloc[:0]


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The constants against the best scalar rival's, the end of Dist, and the loss against every rival's optimum."""
    lines = []
    for name in tables["losses"]["subject"].unique():
        constants, dists = (select(tables[key], subject=name) for key in ("constants", "dist"))
        own, target = select(constants, learner=SUBJECT, metric="constant"), TARGETS[name]
        last = dists[dists["step"] == dists["step"].max()]
        lines.append(f"{name} family, {own['seed'].nunique()} seeds (medians); its target {target} at its own optimum")
        for block in own["target"].unique():
            shown = {
                "network": select(own, target=block),
                "optimum": select(constants, learner=target, target=block),
                "error of the matrix": select(constants, metric="error", target=block),
                "Dist": select(last, metric="dist", target=block),
                "Dist unwhitened": select(last, metric="dist", target=RAW) if block == A else own.iloc[:0],
            }
            for label, rows in shown.items():
                if len(rows):
                    values = rows.groupby("layer")["value"].median()
                    lines.append(f"  {block}  {label:20}" + "  ".join(f"{value:7.3f}" for value in values))
        losses = select(tables["losses"], subject=name)
        loss = select(losses, learner=SUBJECT, metric="loss")
        lines.append(
            f"  loss {loss['value'].median():.3g} (seeds {loss['value'].min():.3g} to {loss['value'].max():.3g})"
        )
        for rival in RIVALS:
            theirs, ratio, excess = (
                select(losses, learner=rival, metric=metric) for metric in ("loss", "ratio", "excess")
            )
            worse = f"{(excess['low'] > 0).sum()} of {len(excess)}"
            lines.append(
                f"    {rival:27}{theirs['value'].iloc[0]:.3g}; the network's is {ratio['value'].median():.3g} times "
                f"that; worse than the network in {worse} seeds"
            )
    return "\n".join(lines)
