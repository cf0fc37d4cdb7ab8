"""What the best constants of gradient descent can reach: each rival's own optimum on a law of regression tasks.

Preconditioned by a fixed matrix M, gradient descent and GD++ multiply the error of w by a polynomial of the examples'
moments: in the coordinates M^1/2 x, along an eigenvector of S = (1/n) sum_j x_j x_j^T with eigenvalue s, a step does

    p <- p (1 - a_l s_l),   s_{l+1} = s_l (1 - a_l b_l s_l)^2,   p = 1 and s_0 = s before the first

so the expected error over weights and queries is known for every context, E (x.w - x.w_L)^2 = p^T K p, and contexts
alone are sampled. With b = 0 the error is that of plain steps; Theorems 3 and 4 of arXiv 2306.00297 have M = Sigma^-1.
Momentum and Chebyshev's iteration have polynomials of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from algorithms.accelerated import Chebyshev, Momentum
from algorithms.examples import Moments
from tasks.errors import ConfigError
from tasks.layout import labelled_layout
from tasks.regression import RegressionFamily, covariance_power

KINDS = ("gd-constant", "gd", "gd-plus-plus")
CONTEXTS_PER_BATCH = 10_000
SCREENED = 5000  # contexts on which starts are compared
STEP_FACTORS = (0.5, 1.0, 2.0, 4.0)  # of a new last step, times the one before: asymmetric, so that no two stay equal
REWRITES = (0.5, 0.9)


@dataclass(frozen=True)
class Spectra:
    """Contexts as a polynomial of their moments sees them: s [contexts, d] and K [contexts, d, d].

    K_ij = (v_i . Sigma' v_j)(v_i . Lambda' v_j) with eigenvectors v of S, and with covariance Sigma' of the queries and
    second moment Lambda' of the weights in the coordinates M^1/2 x; for M = Sigma^-1 = Lambda it is the identity.
    """

    eigenvalues: Float[Tensor, "contexts d"]
    coupling: Float[Tensor, "contexts d d"]

    def losses(self, polynomial: Float[Tensor, "contexts d"]) -> Float[Tensor, " contexts"]:
        """p^T K p: the expected error of every context."""
        return (polynomial * (self.coupling @ polynomial[..., None])[..., 0]).sum(-1)


@dataclass(frozen=True)
class Optimum:
    """The best constants of a rival: a [steps], b [steps - 1] (zero for plain steps), and the loss that they leave."""

    steps: Float[Tensor, " steps"]
    rewrites: Float[Tensor, " rewrites"]
    loss: float


def spectra(
    family: RegressionFamily,
    context_length: int,
    n_contexts: int,
    preconditioner: Float[Tensor, "d d"] | None = None,
    seed: int = 0,
) -> Spectra:
    """Those of n_contexts fresh contexts, for gradient descent preconditioned by M (None: the identity).

    Raises ConfigError for labels with noise, or that are not linear: their loss is another.
    """
    if family.noise or family.target != "linear":
        raise ConfigError(f"noise is {family.noise} and target {family.target!r}; allowed here: 0 and 'linear'")
    d = family.d_features
    identity = torch.eye(d, dtype=torch.float64)
    root = identity if preconditioner is None else symmetric_power(preconditioner, 0.5)
    inverse = torch.linalg.inv(root)
    covariance = covariance_power(family.covariance, 1.0, d)
    second = covariance_power(family.covariance, -1.0 if family.prior == "inverse-covariance" else 0.0, d)
    second = second + family.prior_mean**2
    eigenvalues, couplings = [], []
    for index, start in enumerate(range(0, n_contexts, CONTEXTS_PER_BATCH)):
        n = min(CONTEXTS_PER_BATCH, n_contexts - start)
        prompt = family.fresh_prompt([seed], "spectra", index, n, context_length, labelled_layout(d))
        x = prompt.layout.read(prompt.context, "features")[0].double() @ root
        values, vectors = torch.linalg.eigh(x.mT @ x / context_length)
        eigenvalues.append(values)
        couplings.append(
            (vectors.mT @ (root @ covariance @ root) @ vectors) * (vectors.mT @ (inverse @ second @ inverse) @ vectors)
        )
    return Spectra(torch.cat(eigenvalues), torch.cat(couplings))


def polynomial(
    eigenvalues: Float[Tensor, "*batch d"], steps: Float[Tensor, " steps"], rewrites: Float[Tensor, " rewrites"]
) -> Float[Tensor, "*batch d"]:
    """p after all steps: the share of the error of w that is left along each eigenvector."""
    left, s = torch.ones_like(eigenvalues), eigenvalues
    for layer, a in enumerate(steps):
        left = left * (1 - a * s)
        if layer < len(rewrites):
            s = s * (1 - a * rewrites[layer] * s).square()
    return left


def loss(spectra: Spectra, steps: Float[Tensor, " steps"], rewrites: Float[Tensor, " rewrites"]) -> Tensor:
    """The mean error of GD (rewrites zero) or GD++ with these constants."""
    return spectra.losses(polynomial(spectra.eigenvalues, steps, rewrites)).mean()


def scalar_optimum(kind: str, n_steps: int, spectra: Spectra) -> Optimum:
    """The best constants of "gd-constant" (one step size), "gd" (one per step) or "gd-plus-plus" on these contexts.

    Each depth starts from the optimum of the depth before and several last steps, all unlike the others: from equal
    steps no gradient breaks the symmetry, and the constant-step optimum would be returned.
    """
    if kind not in KINDS:
        raise KeyError(f"no such kind {kind!r}; allowed: {', '.join(KINDS)}")
    if kind == "gd-constant":
        mean = float(spectra.eigenvalues.mean())
        return _best([np.log([a / mean]) for a in (0.5, 1.0)], n_steps, 0, spectra)
    best = scalar_optimum("gd-constant", 1, spectra)
    for depth in range(2, n_steps + 1):
        last, starts = float(best.steps[-1]), []
        for factor in STEP_FACTORS:
            steps = np.log(np.append(best.steps.numpy(), factor * last))
            for rewrite in REWRITES if kind == "gd-plus-plus" else (None,):
                starts.append(steps if rewrite is None else np.concatenate([steps, best.rewrites.numpy(), [rewrite]]))
        best = _best(starts, depth, (depth - 1) * (kind == "gd-plus-plus"), spectra)
    return best


def accelerated_polynomial(learner: Momentum | Chebyshev, eigenvalues: Float[Tensor, "*batch d"]) -> Tensor:
    """p of a learner with memory: on the problem S = C = s, whose solution is one, its last iterate is 1 - p(s)."""
    s = eigenvalues[..., None, None]
    return 1 - learner.iterates(Moments(s, s, 1))[-1][..., 0, 0]


def accelerated_optimum(kind: type[Momentum | Chebyshev], n_steps: int, spectra: Spectra) -> Momentum | Chebyshev:
    """Momentum or Chebyshev's iteration with the best two constants for these contexts, shared by all steps."""

    def learner(free: Tensor) -> Momentum | Chebyshev:
        return kind(n_steps, free[0].exp(), free[1].sigmoid())

    def value(free: Tensor) -> Tensor:
        return spectra.losses(accelerated_polynomial(learner(free), spectra.eigenvalues)).mean()

    start = np.array([-np.log(float(spectra.eigenvalues.mean())), 0.0])
    return learner(torch.from_numpy(_minimise(start, value).x))


def symmetric_power(matrix: Float[Tensor, "d d"], exponent: float) -> Float[Tensor, "d d"]:
    """matrix^exponent of a symmetric matrix with eigenvalues above zero."""
    values, vectors = torch.linalg.eigh(matrix.double())
    return vectors * values**exponent @ vectors.mT


def _best(starts: list[np.ndarray], n_steps: int, n_rewrites: int, spectra: Spectra) -> Optimum:
    """The best end of all starts on a part of the contexts, improved on all of them."""
    part = Spectra(spectra.eigenvalues[:SCREENED], spectra.coupling[:SCREENED])

    def on(contexts: Spectra) -> Callable[[Tensor], Tensor]:
        return lambda free: loss(contexts, *_split(free, n_steps, n_rewrites))

    screened = min((_minimise(x, on(part)) for x in starts), key=lambda found: found.fun)
    found = _minimise(screened.x, on(spectra))
    steps, rewrites = _split(torch.from_numpy(found.x), n_steps, n_rewrites)
    return Optimum(steps.clone(), rewrites.clone(), float(np.exp(found.fun)))


def _split(x: Tensor, n_steps: int, n_rewrites: int) -> tuple[Tensor, Tensor]:
    """a (one for all steps, or one each) from its logarithm, and b."""
    return x[: len(x) - n_rewrites].exp().expand(n_steps), x[len(x) - n_rewrites :]


def _minimise(start: np.ndarray, value: Callable[[Tensor], Tensor]) -> OptimizeResult:
    """BFGS on the logarithm of a loss."""

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(x).clone().requires_grad_()
        logarithm = value(free).log()
        (gradient,) = torch.autograd.grad(logarithm, free)
        return logarithm.item(), gradient.numpy()

    return minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-6})
