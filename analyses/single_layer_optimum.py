"""Is one trained layer the preconditioned gradient step of Theorem 1? And where is the best step of ReLU attention?

One layer of linear attention is trained with every entry of P and Q free, x ~ N(0, Sigma), w ~ N(0, I): on prompts, and
then on the expected loss itself, which one layer has in closed form, so that no sampling is left. Its function is one
gradient step w = A (1/n) sum_j y_j x_j and a part that no label can explain (`models.single_layer`). A is compared with
three rivals, each at its own best scale: the theorem's A, the identity, and Sigma^-1. Theorem 5 gives the step of ReLU
attention for white covariates; it is compared with the best step on samples.
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
from models.single_layer import even_power, expected_loss, minimise_expected_loss, preconditioner
from tasks.layout import labelled_layout
from tasks.regression import AHN_SPECTRUM, RegressionFamily

ANALYSIS = "single-layer-optimum"
SUBJECT, THEOREM, SCALAR, INVERSE = "network", "theorem", "gd", "inverse-covariance"
RELU_PROMPTS = 10_000  # at once
CLOSE = 0.02  # relative distance
EQUAL = 1e-5  # of the loss: what errors in single precision cannot tell apart


def spectra(d: int) -> dict[str, tuple[float, ...]]:
    """Eigenvalues of Sigma by name: white, those of arXiv 2306.00297 (repeated beyond d = 5), and halving ones."""
    published = (AHN_SPECTRUM * d)[:d]
    return {"white": (1.0,) * d, "published": published, "halving": tuple(2.0**-i for i in range(d))}


def run(config: SingleLayerOptimum) -> dict[str, pd.DataFrame]:
    """Tables eigenvalues, distances and losses (subject: the spectrum; by seed, and of the rivals), and relu."""
    parts: dict[str, list[pd.DataFrame]] = {"eigenvalues": [], "distances": [], "losses": []}
    for name, spectrum in spectra(config.d_features).items():
        subject = RegressionSubject(config, 1, "free", config.context_length, spectrum, "identity")
        _record, on_prompts, seeds = subject.trained()
        model = minimise_expected_loss(on_prompts, subject.covariance, config.context_length)
        targets = rivals(subject.covariance, config.context_length)
        found = {
            "eigenvalues": eigenvalues(preconditioner(model).detach(), targets, subject, seeds),
            "distances": distances(subject, model, on_prompts, targets, seeds),
            "losses": losses(subject, model, targets, seeds),
        }
        for key, table in found.items():
            parts[key].append(table.assign(analysis=ANALYSIS, subject=name))
    tables = {key: pd.concat(found, ignore_index=True) for key, found in parts.items()}
    return tables | {"relu": relu(config)}


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


def distances(
    subject: RegressionSubject,
    model: LinearTransformer,
    on_prompts: LinearTransformer,
    targets: Mapping[str, Float[Tensor, "d d"]],
    seeds: list[int],
) -> pd.DataFrame:
    """|A - A'| / |A'| from every rival's A', and the theorem's also as trained on prompts alone; leak: the root mean
    square of the part of the prediction that no label can explain, relative to the labels'."""
    axes, tables = {"seed": seeds}, []
    stages = [(name, "distance", model) for name in targets] + [(THEOREM, "distance-on-prompts", on_prompts)]
    for name, metric, network in stages:
        M = targets[name]
        gap = (preconditioner(network).detach() - M).norm(dim=(-2, -1))
        tables.append(tidy(gap / M.norm(), axes, learner=name, metric=metric))
    power = even_power(model, subject.covariance, subject.context_length).detach()
    leak = (power.clamp(min=0) / subject.covariance.trace()).sqrt()
    return pd.concat([*tables, tidy(leak, axes, learner=SUBJECT, metric="leak")], ignore_index=True)


def losses(
    subject: RegressionSubject,
    model: LinearTransformer,
    targets: Mapping[str, Float[Tensor, "d d"]],
    seeds: list[int],
) -> pd.DataFrame:
    """loss of the network and every rival on common prompts; excess of every rival over the network, paired;
    expected-loss, in closed form."""
    networks = {SUBJECT: model} | {name: gradient_descent(M[None, None], n_layers=1) for name, M in targets.items()}
    found, axes, tables = errors(subject, networks, SUBJECT), {"seed": seeds}, []
    for name, network in networks.items():
        mean, half = found.mean[name], found.half_width[name]
        tables.append(tidy(mean, axes, low=mean - half, high=mean + half, learner=name, metric="loss"))
        gap, half = found.difference[name], found.difference_half_width[name]
        if name != SUBJECT:
            tables.append(tidy(gap, axes, low=gap - half, high=gap + half, learner=name, metric="excess"))
        expected = expected_loss(network, subject.covariance, subject.context_length).detach().expand(len(seeds))
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
        along, sampled = select(tables["eigenvalues"], subject=name), select(own, metric="distance-on-prompts")["value"]
        shown = along.groupby(["learner", "component"], sort=False)["value"].median().unstack()
        lines.append(
            f"{name}: A within {CLOSE:.0%} of Theorem 1's in {(far[THEOREM] < CLOSE).sum()} of {len(far[THEOREM])} "
            f"seeds, at most {far[THEOREM].max():.1g} away, {sampled.max():.1%} when trained on prompts alone "
            f"({far[SCALAR].median():.0%} from the best multiple of I, {far[INVERSE].median():.0%} from that of "
            f"Sigma^-1); leak {select(own, metric='leak')['value'].max():.1g}"
        )
        for rival in (SUBJECT, THEOREM, SCALAR, INVERSE):
            loss = select(losses, learner=rival, metric="loss").median(numeric_only=True)
            excess = select(losses, learner=rival, metric="excess")
            worse = (excess["low"] > EQUAL * loss["value"]).sum()
            beaten = f", worse than the network in {worse} of {len(excess)} seeds"
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
