"""One layer of linear attention without sampling: its expected loss in closed form, and training on that.

With the label's row (p, p_y) of P, the features' columns (R; r) of Q and S = (1/n) sum_j x_j x_j^T, it predicts, up to
its sign,

    x . (R^T S p + (w . S w) p_y r)   +   x . (p_y R^T + r p^T) S w

for labels w . x: the first term is even in w and the second one odd. Where w ~ N(0, I) nothing even helps, so the
loss is that of one step of gradient descent with A = p_y R^T + r p^T, and the mean square of the even term on top.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from algorithms.fit import one_thread
from algorithms.gradient_descent import one_step_loss
from models.linear import LinearTransformer

Covariance = Float[Tensor, "d d"]


def preconditioner(model: LinearTransformer) -> Float[Tensor, "seeds d d"]:
    """A of the step w = A (1/n) sum_j y_j x_j that the odd part of the prediction is."""
    p, gauge, R, r = _blocks(model)
    return model.config.readout_sign * (gauge * R.mT + r.mT @ p)


def even_power(model: LinearTransformer, covariance: Covariance, n: int) -> Float[Tensor, " seeds"]:
    """The mean square of the part that is even in w, x ~ N(0, Sigma), w ~ N(0, I); by E[S B S], E[S tr S], E (w.S w)^2:

    n E[S B S] = (n + 1) Sigma B Sigma + tr(B Sigma) Sigma,   n E[S tr S] = n tr(Sigma) Sigma + 2 Sigma^2
    """
    p, gauge, R, r = _blocks(model)
    square = covariance @ covariance
    trace, trace_square = covariance.trace(), square.trace()
    B = R @ covariance @ R.mT
    spread = (B @ covariance).diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    alone = p @ ((n + 1) * covariance @ B @ covariance + spread * covariance) @ p.mT / n
    mixed = gauge * (r @ covariance @ R.mT @ (trace * covariance + 2 / n * square) @ p.mT)
    fourth = (1 + 2 / n) * trace**2 + (2 + 4 / n) * trace_square
    return (alone + 2 * mixed + fourth * gauge.square() * (r @ covariance @ r.mT))[..., 0, 0]


def expected_loss(model: LinearTransformer, covariance: Covariance, n: int) -> Float[Tensor, " seeds"]:
    """E (f - w . x)^2 of one layer with any P and Q; x ~ N(0, Sigma), w ~ N(0, I), n examples, no noise."""
    return one_step_loss(preconditioner(model), covariance, n) + even_power(model, covariance, n)


@one_thread()
def minimise_expected_loss(model: LinearTransformer, covariance: Covariance, n: int) -> LinearTransformer:
    """Where BFGS ends on the expected loss from this network on, all entries of P and Q free, in float64."""
    model = LinearTransformer(model.config, model.P.detach().double(), model.Q.detach().double())
    weights = (model.P, model.Q)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        vector_to_parameters(torch.from_numpy(x), weights)
        value = expected_loss(model, covariance, n).sum()  # members share no weight
        return value.item(), parameters_to_vector(torch.autograd.grad(value, weights)).numpy()

    start = parameters_to_vector(weights).detach().numpy()
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    vector_to_parameters(torch.from_numpy(found.x.copy()), weights)
    return model


def _blocks(model: LinearTransformer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p [seeds, 1, d], p_y [seeds, 1, 1], R [seeds, d, d] and r [seeds, 1, d]."""
    P, Q, layout = model.P[:, 0, 0], model.Q[:, 0, 0], model.layout
    p, gauge = layout.block(P, "label", "features"), layout.block(P, "label", "label")
    return p, gauge, layout.block(Q, "features", "features"), layout.block(Q, "label", "features")
