"""Is one trained layer the preconditioned gradient step of Theorem 1? And where is the best step of ReLU attention?

One layer of linear attention is trained with every entry of P and Q free, x ~ N(0, Sigma), w ~ N(0, I). Its function
is one gradient step w = A (1/n) sum_j y_j x_j with A = -P[label, label] Q[features, features], up to the entries that
Theorem 1 has zero. It is compared with three rivals, each at its own best scale: the theorem's A, the identity, and
Sigma^-1. Theorem 5 gives the step of ReLU attention for white covariates; it is compared with the best step on samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.fit import one_thread
from algorithms.gradient_descent import one_step_loss, optimal_preconditioner, optimal_relu_step
from analyses.configs import SingleLayerOptimum
from analyses.regression_subjects import Z95, RegressionSubject, errors
from analyses.tables import select, tidy
from models.linear import LinearTransformer
from models.regression_constructions import gradient_descent
from tasks.layout import labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily

ANALYSIS = "single-layer-optimum"
SUBJECT, THEOREM, SCALAR, INVERSE = "network", "theorem", "gd", "inverse-covariance"
RELU_PROMPTS = 10_000  # at once
CLOSE = 0.02  # relative distance


def spectra(d: int) -> dict[str, tuple[float, ...]]:
    """Eigenvalues of Sigma by name: white, those of arXiv 2306.00297 (repeated beyond d = 5), and halving ones."""
    published = (AHN_SPECTRUM * d)[:d]
    return {"white": (1.0,) * d, "published": published, "halving": tuple(2.0**-i for i in range(d))}


def run(config: SingleLayerOptimum) -> dict[str, pd.DataFrame]:
    """Tables eigenvalues, distances and losses (subject: the spectrum; by seed, and of the rivals), and relu."""
    parts: dict[str, list[pd.DataFrame]] = {"eigenvalues": [], "distances": [], "losses": []}
    for name, spectrum in spectra(config.d_features).items():
        subject = RegressionSubject(config, 1, "free", config.context_length, spectrum, "identity")
        _record, model, seeds = subject.trained()
        targets = rivals(subject.covariance, config.context_length)
        found = {
            "eigenvalues": eigenvalues(effective_preconditioner(model), targets, subject, seeds),
            "distances": distances(model, targets, seeds),
            "losses": losses(subject, model, targets, seeds),
        }
        for key, table in found.items():
            parts[key].append(table.assign(analysis=ANALYSIS, subject=name))
    tables = {key: pd.concat(found, ignore_index=True) for key, found in parts.items()}
    return tables | {"relu": relu(config)}


def effective_preconditioner(model: LinearTransformer) -> Float[Tensor, "seeds d d"]:
    """A = -(P[label, label] Q[features, features])^T of the first layer: no gauge changes it."""
    layout = model.layout
    gauge, block = layout.block(model.P, "label", "label"), layout.block(model.Q, "features", "features")
    return model.config.readout_sign * (gauge * block).detach()[:, 0, 0].mT


def leak(model: LinearTransformer) -> Float[Tensor, " seeds"]:
    """Share of the layer's function that stands in entries that Theorem 1 has zero.

    The prediction is p . G (q x) with the label row p of P and the features columns q of Q: the share, in norm, of the
    coefficients p_i q_jk other than those of A.
    """
    layout = model.layout
    row = model.P.detach()[:, 0, 0, layout["label"]].flatten(1)
    columns = model.Q.detach()[:, 0, 0, :, layout["features"]]
    coefficients = row[:, :, None, None] * columns[:, None]
    whole = coefficients.square().flatten(1).sum(-1)
    own = effective_preconditioner(model).square().flatten(1).sum(-1)
    return ((whole - own).clamp(min=0) / whole).sqrt()


def rivals(covariance: Float[Tensor, "d d"], n: int) -> dict[str, Float[Tensor, "d d"]]:
    """The theorem's A, and the multiples of the identity and of Sigma^-1 that leave the least loss."""
    identity = torch.eye(len(covariance), dtype=torch.float64)
    directions = {SCALAR: identity, INVERSE: torch.linalg.inv(covariance)}
    best = {name: best_scale(M, covariance, n) * M for name, M in directions.items()}
    return {THEOREM: optimal_preconditioner(covariance, n), **best}


def best_scale(matrix: Float[Tensor, "d d"], covariance: Float[Tensor, "d d"], n: int) -> Tensor:
    """The c that minimises the loss of c M, which is quadratic in c."""
    minus, none, plus = one_step_loss(torch.stack([-matrix, 0 * matrix, matrix]), covariance, n)
    return (minus - plus) / (2 * (plus + minus - 2 * none))


def eigenvalues(
    A: Float[Tensor, "seeds d d"],
    targets: Mapping[str, Float[Tensor, "d d"]],
    subject: RegressionSubject,
    seeds: list[int],
) -> pd.DataFrame:
    """v_i . A v_i along the eigenvectors of Sigma; index columns component and covariance, Sigma's eigenvalue."""
    values, vectors = torch.linalg.eigh(subject.covariance)
    components = {"component": list(range(len(values)))}

    def along(matrix: Tensor) -> Tensor:
        return (vectors.mT @ matrix @ vectors).diagonal(dim1=-2, dim2=-1)

    tables = [tidy(along(A), {"seed": seeds, **components}, learner=SUBJECT, metric="eigenvalue")]
    tables += [tidy(along(M), components, learner=name, metric="eigenvalue") for name, M in targets.items()]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(covariance=table["component"].map(dict(enumerate(values.tolist()))))


def distances(model: LinearTransformer, targets: Mapping[str, Float[Tensor, "d d"]], seeds: list[int]) -> pd.DataFrame:
    """|A - A'| / |A'| from every rival's A', and the leak."""
    A, axes = effective_preconditioner(model), {"seed": seeds}
    tables = [
        tidy((A - M).norm(dim=(-2, -1)) / M.norm(), axes, learner=name, metric="distance")
        for name, M in targets.items()
    ]
    return pd.concat([*tables, tidy(leak(model), axes, learner=SUBJECT, metric="leak")], ignore_index=True)


def losses(
    subject: RegressionSubject,
    model: LinearTransformer,
    targets: Mapping[str, Float[Tensor, "d d"]],
    seeds: list[int],
) -> pd.DataFrame:
    """loss of the network and every rival on common prompts; excess of every rival over the network, paired;
    expected-loss, the closed form of A (of the network as if nothing leaked)."""
    networks = {SUBJECT: model} | {name: gradient_descent(M[None, None], n_layers=1) for name, M in targets.items()}
    found, axes, n = errors(subject, networks, SUBJECT), {"seed": seeds}, subject.context_length
    matrices = {SUBJECT: effective_preconditioner(model), **targets}
    tables = []
    for name in networks:
        mean, half = found.mean[name], found.half_width[name]
        tables.append(tidy(mean, axes, low=mean - half, high=mean + half, learner=name, metric="loss"))
        gap, half = found.difference[name], found.difference_half_width[name]
        if name != SUBJECT:
            tables.append(tidy(gap, axes, low=gap - half, high=gap + half, learner=name, metric="excess"))
        expected = one_step_loss(matrices[name], subject.covariance, n).expand(len(seeds))
        tables.append(tidy(expected, axes, learner=name, metric="expected-loss"))
    return pd.concat(tables, ignore_index=True)


@one_thread()
@torch.no_grad()
def relu(config: SingleLayerOptimum) -> pd.DataFrame:
    """ReLU attention, white covariates: moments E y^2, E f y, E f^2 of its prediction f at step size 1 (it is
    homogeneous, so they give the loss at any step), the best step with its interval, and that of Theorem 5."""
    d, n, total = config.d_features, config.context_length, max(1, config.test_prompts // 10)
    network = gradient_descent(torch.eye(d, dtype=torch.float64)[None, None], n_layers=1, activation="relu")
    pairs = []
    for index, start in enumerate(range(0, total, RELU_PROMPTS)):
        prompt = RegressionFamily(d, n_queries=1).fresh_prompt(
            [0], f"{ANALYSIS}/relu", index, min(RELU_PROMPTS, total - start), n, labelled_layout(d)
        )
        pairs.append(torch.stack([network.predict(prompt).flatten(), prompt.answers.flatten()]))
    f, y = torch.cat(pairs, -1)
    power = f.square().mean()
    step = (f * y).mean() / power
    half = Z95 * (f * (y - step * f)).std() / power / len(f) ** 0.5
    moments = {"y^2": y.square().mean(), "f y": (f * y).mean(), "f^2": power}
    tables = [tidy([value.item()], {"seed": [pd.NA]}, learner=SUBJECT, metric=key) for key, value in moments.items()]
    interval = {"low": (step - half).item(), "high": (step + half).item()}
    tables.append(tidy([step.item()], {"seed": [pd.NA]}, learner=SUBJECT, metric="step", **interval))
    tables.append(tidy([optimal_relu_step(d, n)], {"seed": [pd.NA]}, learner=THEOREM, metric="step"))
    return pd.concat(tables, ignore_index=True).assign(analysis=ANALYSIS, subject="white")


def summarise(tables: Mapping[str, pd.DataFrame]) -> str:
    """The distance to Theorem 1, eigenvalues and losses by spectrum, and the best ReLU step."""
    lines = []
    for name in tables["losses"]["subject"].unique():
        own, losses = select(tables["distances"], subject=name), select(tables["losses"], subject=name)
        far = {rival: select(own, learner=rival, metric="distance")["value"] for rival in (THEOREM, SCALAR, INVERSE)}
        along = select(tables["eigenvalues"], subject=name)
        shown = along.groupby(["learner", "component"], sort=False)["value"].median().unstack()
        lines.append(
            f"{name}: A within {CLOSE:.0%} of Theorem 1's in {(far[THEOREM] < CLOSE).sum()} of {len(far[THEOREM])} "
            f"seeds, median {far[THEOREM].median():.1%} ({far[SCALAR].median():.0%} from the best multiple of I, "
            f"{far[INVERSE].median():.0%} from that of Sigma^-1); leak "
            f"{select(own, metric='leak')['value'].median():.1%}"
        )
        for rival in (SUBJECT, THEOREM, SCALAR, INVERSE):
            loss = select(losses, learner=rival, metric="loss").median(numeric_only=True)
            excess = select(losses, learner=rival, metric="excess")
            beaten = f", worse than the network in {(excess['low'] > 0).sum()} of {len(excess)} seeds"
            values = " ".join(f"{value:.3f}" for value in shown.loc[rival])
            lines.append(
                f"  {rival:18}  eigenvalues {values}   loss {loss['value']:.4f} "
                f"[{loss['low']:.4f}, {loss['high']:.4f}]" + ("" if rival == SUBJECT else beaten)
            )
    step = tables["relu"]
    best, theorem = (select(step, learner=rival, metric="step").iloc[0] for rival in (SUBJECT, THEOREM))
    lines.append(
        f"ReLU attention, white covariates: best step {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}], "
        f"Theorem 5 says {theorem['value']:.3f}"
    )
    return "\n".join(lines)
