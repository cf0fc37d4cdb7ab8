"""Reading P and Q of a network of labelled tokens: which preconditioners and which rewriting of x do they encode?

In column form a layer adds P G Q z to every token z = (x, y) (G the moments of the context, see models.collapsed). With
p = P[label, label], Q_x = Q[features, features] and P_x = P[features, features] alone, and S and c the moments of x and
of x with y, that is

    y_j <- y_j - (C c) . x_j,   C = -p Q_x^T,        x_j <- x_j - b S C^T x_j,   b I = P_x / p

gradient descent on the residuals with the preconditioner C, and the rewriting of GD++ (arXiv 2306.00297, Lemma 1 and
Theorem 4; 2212.07677). Both are invariants of the gauge (k P, Q / k). Distances to constructions are those of
`probes.weights`, over the blocks that can influence a prediction. The published measure is

    Dist(M, I) = min_a |M - a I| / |M|,   in [0, 1]

of P_x, of C, and of Sigma^1/2 C Sigma^1/2 (section 4 of 2306.00297), Sigma the covariance that the config names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from models.config import ConfigError
from models.linear import LinearTransformer
from probes.weights import ConstructionFit, relevance, tidy_layers
from tasks.regression import covariance_power

PerLayer = Float[Tensor, "seeds layers"]
PerLayerMatrix = Float[Tensor, "seeds layers d d"]


@dataclass(frozen=True)
class ExampleReading:
    """What P and Q say, layer by layer (one layer where looped).

    C: the preconditioners as defined above; alpha: tr C / d; whitened: Sigma^1/2 C Sigma^1/2, and alpha_whitened its
    tr / d, the step size where x is white. rewrite: b = tr P_x / (d p). dist_b, dist_a, dist_a_whitened: Dist of P_x, C
    and whitened; NaN for a matrix of zeros, and dist_b also in a last layer, whose P_x influences nothing.
    """

    C: PerLayerMatrix
    whitened: PerLayerMatrix
    alpha: PerLayer
    alpha_whitened: PerLayer
    rewrite: PerLayer
    dist_b: PerLayer
    dist_a: PerLayer
    dist_a_whitened: PerLayer
    constructions: dict[str, ConstructionFit]

    def starts(self) -> dict[str, dict[str, Tensor]]:
        """The constants of the nearest constructions as learners take them, [seeds, 1, ...]."""
        return {
            "gd": {"step_size": self.alpha[:, None]},
            "averaging": {"step_size": self.alpha[:, None, :1]},
            "preconditioned-gd": {"preconditioner": self.C[:, None]},
            "gd-plus-plus": {"preconditioner": self.C[:, None], "rewrite": self.rewrite[:, None]},
        }

    def constants(self) -> dict[str, PerLayer]:
        """What a reader wants to see first."""
        return {"alpha": self.alpha, "alpha_whitened": self.alpha_whitened, "rewrite": self.rewrite}

    def table(self) -> pd.DataFrame:
        """Tidy: seed, layer, target, learner, metric, value."""
        metrics = ("alpha", "alpha_whitened", "rewrite", "dist_b", "dist_a", "dist_a_whitened")
        parts = [tidy_layers(getattr(self, metric), metric) for metric in metrics]
        for learner, fit in self.constructions.items():
            parts.append(tidy_layers(fit.distance, "construction_distance", learner))
        return pd.concat(parts, ignore_index=True)


def dist(matrix: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """Dist(M, I): the relative distance from the nearest multiple of the identity; NaN for zero."""
    d = matrix.shape[-1]
    scale = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] / d
    identity = torch.eye(d, dtype=matrix.dtype)
    return torch.linalg.matrix_norm(matrix - scale * identity) / torch.linalg.matrix_norm(matrix)


def read_example_weights(model: LinearTransformer) -> ExampleReading:
    """Reads every layer of every seed. Raises ConfigError for a network of other tokens."""
    config, layout, d = model.config, model.layout, model.config.d_features
    if config.tokens != "labelled":
        raise ConfigError(f"prompt.tokens is {config.tokens!r}; allowed here: 'labelled'")
    P, Q = (weight.detach().cpu().double()[:, :, 0] for weight in (model.P, model.Q))
    p, Q_x = P[..., -1, -1], layout.block(Q, "features", "features")
    P_x = layout.block(P, "features", "features")
    C = -p[..., None, None] * Q_x.mT
    root = covariance_power(config.covariance, 0.5, d)
    whitened = root @ C @ root
    written = relevance(config)[0][:, 0, 0]
    rewrite = (_trace(P_x) / (d * p)).where(written, 0.0)
    return ExampleReading(
        C=C,
        whitened=whitened,
        alpha=_trace(C) / d,
        alpha_whitened=_trace(whitened) / d,
        rewrite=rewrite,
        dist_b=dist(P_x).where(written, math.nan),
        dist_a=dist(C),
        dist_a_whitened=dist(whitened),
        constructions=_constructions(model, P, Q, C, rewrite),
    )


def _constructions(
    model: LinearTransformer, P: Tensor, Q: Tensor, C: PerLayerMatrix, rewrite: PerLayer
) -> dict[str, ConstructionFit]:
    """P of a construction lies in span {E, I_x}, its Q on a line or in a space of matrices (see probes.weights)."""
    config, layout, d = model.config, model.layout, model.config.d_features
    if config.activation != "linear":
        return {}
    p_relevant, q_relevant = relevance(config)
    P, Q = P * p_relevant, Q * q_relevant
    total = _squares(P) * _squares(Q)
    p_squared, Q_x = P[..., -1, -1].square(), layout.block(Q, "features", "features")
    plus_squared = p_squared + _trace(layout.block(P, "features", "features")).square() / d
    alpha = {"alpha": _trace(C) / d}

    def fit(p: Tensor, q: Tensor, constants: dict[str, Tensor], matrix: Tensor | None = None) -> ConstructionFit:
        return ConstructionFit((1 - p * q / total).clamp(min=0), constants, matrix)

    return {
        "gd": fit(p_squared, _trace(Q_x).square() / d, alpha),
        "preconditioned-gd": fit(p_squared, _squares(Q_x), alpha, C),
        "gd-plus-plus": fit(plus_squared, _squares(Q_x), {**alpha, "rewrite": rewrite}, C),
    }


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _squares(matrix: Tensor) -> Tensor:
    return matrix.square().sum((-2, -1))
