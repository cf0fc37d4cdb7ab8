"""In-context regression: covariates, weights and labels, batched over seeds and tasks.

    x ~ Sigma^1/2 u with E u = 0, E u u^T = I,   w ~ N(m 1, I) or N(m 1, Sigma^-1),   y = g(<w, x>) + noise

A prompt is (x_1, y_1), ..., (x_n, y_n) and queries (x, 0) (section 2 of arXiv 2306.00297; finite pools of tasks as in
arXiv 2306.15063, a prior mean as in 2512.04268, nonlinear labels as in 2307.03576).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tasks.errors import ConfigError, require
from tasks.layout import Prompt, TokenLayout
from tasks.orthogonal import haar
from tasks.streams import normals, uniforms

COVARIATES = ("gaussian", "sphere", "student-t")
PRIORS = ("identity", "inverse-covariance")
TARGETS = ("linear", "sign", "relu")
DEGREES_OF_FREEDOM = 5  # of the Student t: the smallest whole number with a finite fourth moment
AHN_SPECTRUM = (1.0, 1.0, 0.25, 0.0625, 1.0)  # of Sigma in all experiments of arXiv 2306.00297 but the isotropic one
Covariance = tuple[tuple[float, ...], ...]


def covariance_matrix(spectrum: Sequence[float], rotation: int | None = None) -> Covariance:
    """Sigma = U diag(spectrum) U^T with U uniform on O(d), from the stream of seed `rotation`; None: U = I."""
    d = len(spectrum)
    basis = torch.eye(d).double() if rotation is None else haar(normals([rotation], "rotation", 0, d, d).double())[0]
    matrix = basis * torch.tensor(spectrum, dtype=torch.float64) @ basis.mT
    return tuple(tuple(row) for row in ((matrix + matrix.mT) / 2).tolist())


def covariance_power(covariance: Covariance | None, exponent: float, d: int) -> Float[Tensor, "d d"]:
    """The symmetric Sigma^exponent in float64; of the identity where covariance is None."""
    if covariance is None:
        return torch.eye(d, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.tensor(covariance, dtype=torch.float64))
    return vectors * values**exponent @ vectors.mT


@dataclass(frozen=True)
class RegressionFamily:
    """A distribution over regression tasks.

    covariance: Sigma, None for the identity. covariates: x is gaussian; sphere, Sigma^1/2 times a point uniform on the
    sphere of radius sqrt(d); or student-t, multivariate of DEGREES_OF_FREEDOM. All have covariance Sigma.
    prior: w ~ N(m 1, I), or N(m 1, Sigma^-1), where m is prior_mean. noise: the standard deviation of label noise.

    target: the label before noise is z = <w, x> itself (linear), its sign, or sqrt(2) max(z, 0) (relu); only the
    last is no odd function of w.

    n_tasks: number of distinct training tasks of a seed, None for a fresh one each time. n_queries: of evaluation
    prompts; training prompts have one.
    """

    d_features: int = 5
    covariance: Covariance | None = None
    covariates: str = "gaussian"
    prior: str = "identity"
    prior_mean: float = 0.0
    noise: float = 0.0
    n_tasks: int | None = None
    target: str = "linear"
    n_queries: int = 10

    def __post_init__(self) -> None:
        for name, allowed in (("covariates", COVARIATES), ("prior", PRIORS), ("target", TARGETS)):
            require(name, getattr(self, name), allowed)
        for name in ("d_features", "n_queries", "n_tasks"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"{name} is {count}; allowed: a whole number of at least 1")
        if not self.noise >= 0:
            raise ConfigError(f"noise is {self.noise}, a standard deviation; allowed: a number of at least 0")
        if self.covariance is not None:
            self._check_covariance(self.covariance)

    def _check_covariance(self, covariance: Covariance) -> None:
        d = self.d_features
        allowed = f"allowed: {d} rows of {d} numbers, symmetric with eigenvalues above 0, as `covariance_matrix` makes"
        if {len(covariance), *map(len, covariance)} != {d} or covariance != tuple(zip(*covariance, strict=True)):
            raise ConfigError(f"covariance is {covariance}; {allowed}")
        least = float(torch.linalg.eigvalsh(torch.tensor(covariance, dtype=torch.float64)).min())
        if not least > 0:
            raise ConfigError(f"covariance has the eigenvalue {least:.3g}; {allowed}")

    def weights(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> Float[Tensor, "seeds n d"]:
        """w of n fresh tasks per seed, in float64: batch `index` of the stream `purpose`."""
        draws = normals(seeds, f"{purpose}/weights", index, n, self.d_features).double()
        return self.prior_mean + draws @ self._power(-0.5 if self.prior == "inverse-covariance" else 0.0)

    def pool(self, seeds: Sequence[int]) -> Float[Tensor, "seeds n_tasks d"]:
        """w of every training task, in float64. Raises ConfigError where their number has no end."""
        if self.n_tasks is None:
            raise ConfigError("n_tasks is None: there is no pool of training tasks; allowed: a whole number")
        return self.weights(seeds, "pool", 0, self.n_tasks)

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """One context of each of n fresh tasks, batch axes (seeds, n), in float64; answers are free of noise."""
        weights, task = self.weights(seeds, purpose, index, n), torch.arange(n).expand(len(seeds), n)
        x, signal, labels = self._examples(weights, seeds, purpose, index, context_length + self.n_queries)
        return labelled_prompt(x, labels, signal[..., context_length:], task, layout)

    def pool_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """The same for n tasks picked from the pool, numbered as there. Raises ConfigError where it has no end."""
        weights, task = self._pick(seeds, purpose, index, n)
        x, signal, labels = self._examples(weights, seeds, purpose, index, context_length + self.n_queries)
        return labelled_prompt(x, labels, signal[..., context_length:], task, layout)

    def training_prompt(
        self, seeds: Sequence[int], index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """n training tasks of batch `index`, fresh or from the pool, one query each, in float32.

        Answers are the queries' labels, noise and all: what training is told.
        """
        if self.n_tasks is None:
            weights, task = self.weights(seeds, "train", index, n), torch.arange(n).expand(len(seeds), n)
        else:
            weights, task = self._pick(seeds, "train", index, n)
        x, _signal, labels = self._examples(weights.float(), seeds, "train", index, context_length + 1)
        return labelled_prompt(x, labels, labels[..., context_length:], task, layout)

    def _pick(
        self, seeds: Sequence[int], purpose: str, index: int, n: int
    ) -> tuple[Float[Tensor, "seeds n d"], Int[Tensor, "seeds n"]]:
        """Weights of n tasks, each uniform over the pool, and their numbers in it."""
        pool = self.pool(seeds)
        task = (uniforms(seeds, f"{purpose}/pick", index, n) * pool.shape[1]).long()
        return pool.take_along_dim(task[..., None], 1), task

    def _examples(
        self, weights: Float[Tensor, "seeds n d"], seeds: Sequence[int], purpose: str, index: int, n_tokens: int
    ) -> tuple[Float[Tensor, "seeds n tokens d"], Float[Tensor, "seeds n tokens"], Float[Tensor, "seeds n tokens"]]:
        """Covariates, labels before noise, and labels, in the dtype of the weights."""
        n, d = weights.shape[1:]
        x = normals(seeds, f"{purpose}/covariates", index, n, n_tokens, d).to(weights)
        if self.covariates == "sphere":
            x = x * (d**0.5 / x.norm(dim=-1, keepdim=True))
        elif self.covariates == "student-t":
            draws = normals(seeds, f"{purpose}/chi-square", index, n, n_tokens, DEGREES_OF_FREEDOM).to(weights)
            x = x * ((DEGREES_OF_FREEDOM - 2) / draws.square().sum(-1, keepdim=True)).sqrt()
        x = x @ self._power(0.5).to(weights)
        signal = self._label((x @ weights[..., None])[..., 0])
        if self.noise == 0:
            return x, signal, signal
        return x, signal, signal + self.noise * normals(seeds, f"{purpose}/noise", index, n, n_tokens).to(weights)

    def _label(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        if self.target == "linear":
            return z
        return z.sign() if self.target == "sign" else 2**0.5 * z.relu()

    def _power(self, exponent: float) -> Float[Tensor, "d d"]:
        """The symmetric Sigma^exponent."""
        return covariance_power(self.covariance, exponent, self.d_features)


def labelled_prompt(
    x: Float[Tensor, "*batch tokens d"],
    labels: Float[Tensor, "*batch tokens"],
    answers: Float[Tensor, "*batch queries"],
    task: Int[Tensor, "*batch"],
    layout: TokenLayout,
) -> Prompt:
    """Tokens (x, y), the last ones as queries (x, 0): one for each answer. Queries count alike."""
    n_tokens, n_queries = x.shape[-2], answers.shape[-1]
    queries = torch.arange(n_tokens - n_queries, n_tokens)
    return Prompt(
        tokens=torch.cat([x, labels.index_fill(-1, queries, 0.0)[..., None]], -1),
        layout=layout,
        queries=queries,
        answers=answers[..., None],
        task=task,
        weights=torch.ones_like(answers),
    )
