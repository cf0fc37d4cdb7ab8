"""The rivals for a value estimator: batch TD and its relatives, each reading the same transition tokens.

With n context tokens (phi_j, gamma phi'_j, R_j), every learner here but TD++ is fixed by a *system*: a direction e_j, a
difference f_j and a signal s_j per token, whose TD error is delta_j = s_j - f_j . w and whose moments are

    A = (1/n) sum_j e_j f_j^T,    b = (1/n) sum_j e_j s_j

Iterative learners run w_{l+1} = w_l + alpha_l (b - A w_l) from w_0 = 0 (arXiv 2405.13861, Theorem 1, Corollaries 2 and
3, Theorem 3); direct ones solve A w = b. `gamma` is the discount that the learner itself applies to phi', whatever
discount the tokens carry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from algorithms.learner import Trace, as_constant, constant, per_step, read_values, stack_steps
from tasks.layout import Prompt

STEP_SIZES = (1.0, 0.1, 2.5)
GAMMAS = (0.9, 0.5)
# No learner is meant to go there: a fit that stops at a bound says so, and excludes nothing (`Fit.at_bound`).
LARGEST_STEP = 100.0
LARGEST_GAMMA = 3.0


class Transitions(NamedTuple):
    """The context tokens taken apart: phi [*batch, n, d], phi' [*batch, n, d] without discount, R [*batch, n]."""

    phi: Tensor
    next_phi: Tensor
    reward: Tensor


class System(NamedTuple):
    """e [*batch, n, d], f [*batch, n, d], s [*batch, n]: the TD error is s - f . w and moves w along e."""

    direction: Tensor
    difference: Tensor
    signal: Tensor

    def moments(self) -> tuple[Tensor, Tensor]:
        """A [*batch, d, d] and b [*batch, d]."""
        n = self.signal.shape[-1]
        return self.direction.mT @ self.difference / n, _apply(self.direction.mT, self.signal) / n


def transitions(prompt: Prompt) -> Transitions:
    """The transitions of a prompt's context, the tokens' own discount divided out.

    Raises ValueError for a discount of zero: such tokens do not hold phi'.
    """
    layout, context = prompt.layout, prompt.context
    if layout.discount == 0:
        raise ValueError("the tokens' discount is 0: they hold nothing of the next features to bootstrap from")
    next_phi = layout.read(context, "next_features") / layout.discount
    return Transitions(layout.read(context, "features"), next_phi, layout.read(context, "reward")[..., 0])


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _discounted(context: Transitions, gamma: float | Tensor) -> Tensor:
    return context.phi - as_constant(gamma, context.phi, trailing=2) * context.next_phi


def _td_moments(context: Transitions, gamma: float | Tensor) -> tuple[Tensor, Tensor]:
    """A = E[phi phi^T] - gamma E[phi phi'^T] and b = E[R phi]: gamma enters after the averages, so many cost little."""
    matrix, vector = System(context.phi, context.phi, context.reward).moments()
    bootstrap, _ = System(context.phi, context.next_phi, context.reward).moments()
    return matrix - as_constant(gamma, matrix, trailing=2) * bootstrap, vector


def _lagged(first: Tensor, second: Tensor) -> Float[Tensor, "*batch lags d1 d2"]:
    """(1/n) sum_j first_{j-k} second_j^T for every lag k = 0 ... n-1, of [*batch, n, d1] and [*batch, n, d2]."""
    n = first.shape[-2]
    padded = torch.nn.functional.pad(first, (0, 0, n - 1, 0))
    earlier = padded.unfold(-2, n, 1)  # [*batch, n-1-k, d1, j]
    products = earlier.flatten(-3, -2) @ second / n  # one product for all lags
    return products.unflatten(-2, earlier.shape[-3:-1]).flip(-3)


def _decayed(rate: float | Tensor, lagged: Float[Tensor, "*batch lags d1 d2"]) -> Float[Tensor, "... d1 d2"]:
    """sum_k rate^k lagged_k"""
    powers = as_constant(rate, lagged, trailing=1) ** torch.arange(lagged.shape[-3])
    return torch.einsum("...k, ...kij -> ...ij", powers, lagged)


class _Linear(ABC):
    """Learners whose value is phi_q . w. Subclasses give the system and how its moments become iterates."""

    @abstractmethod
    def system(self, context: Transitions) -> System: ...

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        """The moments of the system; overridden where averaging first is cheaper."""
        return self.system(context).moments()

    @abstractmethod
    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]: ...

    def __call__(self, prompt: Prompt) -> Trace:
        context = transitions(prompt)
        system = self.system(context)
        weights = stack_steps(self.iterates(*self.moments(context)))
        td_error = system.signal - _apply(system.difference, weights)
        return Trace(read_values(weights, prompt), weights, {"td_error": td_error})

    def predict(self, prompt: Prompt) -> Float[Tensor, "*batch queries 1"]:
        return read_values(self.iterates(*self.moments(transitions(prompt)))[-1], prompt)


class _Iterative(_Linear):
    n_steps: int
    step_size: float | Tensor

    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]:
        iterates = [torch.zeros_like(vector)]
        for step_size in per_step(self.step_size, self.n_steps, vector):
            iterates.append(iterates[-1] + step_size * (vector - _apply(matrix, iterates[-1])))
        return iterates


@dataclass(frozen=True)
class TD0(_Iterative):
    """Batch TD(0): e = phi, delta = R + gamma phi'.w - phi.w (Theorem 1 with C = alpha I)."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)

    def system(self, context: Transitions) -> System:
        return System(context.phi, _discounted(context, self.gamma), context.reward)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        return _td_moments(context, self.gamma)


@dataclass(frozen=True)
class ResidualGradient(_Iterative):
    """Naive residual gradient: e = phi - gamma phi', the gradient of half the squared TD error (Corollary 2)."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)

    def system(self, context: Transitions) -> System:
        difference = _discounted(context, self.gamma)
        return System(difference, difference, context.reward)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        matrix, vector = _td_moments(context, self.gamma)
        after = System(context.next_phi, context.next_phi, context.reward)
        bootstrap, gradient = after._replace(difference=context.phi).moments()
        gamma = as_constant(self.gamma, vector, trailing=1)
        square = gamma[..., None] * after.moments()[0]
        return matrix - gamma[..., None] * (bootstrap - square), vector - gamma * gradient


@dataclass(frozen=True)
class TDLambda(_Iterative):
    """Batch TD with eligibility traces e_j = decay e_{j-1} + phi_j.

    Corollary 3 of the paper decays by lambda; its background section, like the textbook, by gamma lambda.
    """

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)
    lam: float | Tensor = constant(0.0, 1.0, (0.1, 0.6))
    decay: Literal["lambda", "gamma-lambda"] = "lambda"

    @property
    def rate(self) -> float | Tensor:
        """What a trace is multiplied by per transition."""
        return self.lam if self.decay == "lambda" else self.gamma * self.lam

    def system(self, context: Transitions) -> System:
        n = context.phi.shape[-2]
        # e_j = sum_i rate^(j-i) phi_i over i <= j
        age = torch.arange(n)[:, None] - torch.arange(n)
        decays = torch.where(age >= 0, as_constant(self.rate, context.phi, trailing=2) ** age.clamp(min=0), 0.0)
        return System(decays @ context.phi, _discounted(context, self.gamma), context.reward)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        read = torch.cat([context.phi, context.next_phi, context.reward[..., None]], -1)
        d = context.phi.shape[-1]
        here, ahead, reward = _decayed(self.rate, _lagged(context.phi, read)).split([d, d, 1], -1)
        return here - as_constant(self.gamma, here, trailing=2) * ahead, reward[..., 0]


@dataclass(frozen=True)
class AverageRewardTD(_Iterative):
    """Differential TD: delta_j = R_j - rbar_j + phi'.w - phi.w with the running mean rbar_j (Theorem 3)."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)

    def system(self, context: Transitions) -> System:
        count = torch.arange(1, context.reward.shape[-1] + 1, dtype=context.reward.dtype)
        centred = context.reward - context.reward.cumsum(-1) / count
        return System(context.phi, context.phi - context.next_phi, centred)


@dataclass(frozen=True)
class PreconditionedTD(_Linear):
    """Batch TD(0) whose step is a matrix: w <- w + C_l (b - A w) (Theorem 1 with any C_l [*batch, steps | 1, d, d])."""

    n_steps: int
    preconditioner: Tensor = constant(-LARGEST_STEP, LARGEST_STEP, STEP_SIZES, per_step=True, matrix=True)
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)

    def system(self, context: Transitions) -> System:
        return System(context.phi, _discounted(context, self.gamma), context.reward)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        return _td_moments(context, self.gamma)

    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]:
        iterates = [torch.zeros_like(vector)]
        for preconditioner in per_step(self.preconditioner, self.n_steps, vector, matrix=True):
            iterates.append(iterates[-1] + _apply(preconditioner, vector - _apply(matrix, iterates[-1])))
        return iterates


@dataclass(frozen=True)
class Myopic(_Iterative):
    """TD(0) with gamma = 0: gradient descent on the immediate reward, blind to the future."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)

    def system(self, context: Transitions) -> System:
        return System(context.phi, context.phi, context.reward)


@dataclass(frozen=True)
class RewardAverage(Myopic):
    """One myopic step from zero, w = alpha (1/n) sum_j R_j phi_j: it averages rewards and learns from no error."""

    n_steps: int = 1


class _Direct(_Linear):
    ridge: float | Tensor

    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]:
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        regularised = matrix + as_constant(self.ridge, matrix, trailing=2) * identity
        return [torch.zeros_like(vector), torch.linalg.solve(regularised, vector[..., None])[..., 0]]


@dataclass(frozen=True)
class LSTD(_Direct):
    """Least-squares TD: (A + ridge I) w = b, the fixed point of batch TD(0) (Bradtke and Barto 1996)."""

    ridge: float | Tensor = constant(1e-8, 10.0, (0.01, 0.3))
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)

    def system(self, context: Transitions) -> System:
        return System(context.phi, _discounted(context, self.gamma), context.reward)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        return _td_moments(context, self.gamma)


@dataclass(frozen=True)
class MonteCarlo(_Direct):
    """Ridge regression of the discounted returns to the end of the context on phi."""

    ridge: float | Tensor = constant(1e-8, 10.0, (0.01, 0.3))
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)

    def system(self, context: Transitions) -> System:
        n = context.reward.shape[-1]
        delay = torch.arange(n) - torch.arange(n)[:, None]
        powers = as_constant(self.gamma, context.phi, trailing=2) ** delay.clamp(min=0)
        returns = _apply(torch.where(delay >= 0, powers, 0.0), context.reward)
        return System(context.phi, context.phi, returns)

    def moments(self, context: Transitions) -> tuple[Tensor, Tensor]:
        # a reward k transitions later counts gamma^k
        returns = _decayed(self.gamma, _lagged(context.phi, context.reward[..., None]))[..., 0]
        return System(context.phi, context.phi, context.reward).moments()[0], returns


@dataclass(frozen=True)
class Zero(_Linear):
    """Predicts zero everywhere, whatever the tokens are: the floor that skill is measured against."""

    def __call__(self, prompt: Prompt) -> Trace:
        return Trace(self.predict(prompt).expand(2, *prompt.answers.shape))

    def predict(self, prompt: Prompt) -> Inexact[Tensor, "*batch queries out"]:
        return torch.zeros_like(prompt.answers)

    def system(self, context: Transitions) -> System:
        return System(context.phi, context.phi, context.reward)

    def iterates(self, matrix: Tensor, vector: Tensor) -> list[Tensor]:
        return [torch.zeros_like(vector)] * 2
