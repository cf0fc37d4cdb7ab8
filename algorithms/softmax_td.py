"""Weighted-softmax TD: batch TD for values without weights, the learner that softmax attention can run.

Every state has a value of its own, and a TD error moves the values of all states, the similar ones most
(arXiv 2605.07333). With context transitions (phi_k, phi'_k, R_k) one step is, for every state x at once,

    v(x) <- v(x) + alpha sum_k delta_k K(phi_k, x),   delta_k = R_k + gamma v(phi'_k) - v(phi_k),   v = 0 at first

    K(phi_k, x) = exp(beta x . phi_k) / sum_i exp(beta x . phi_i)

In the limit beta -> infinity, with one-hot features, this is tabular TD on the mean error of each state's visits. At
beta = 0 all states share one value. Values are no linear function of the query's features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from algorithms.learner import Trace, as_constant, constant, per_step, stack_steps
from algorithms.temporal_difference import GAMMAS, LARGEST_GAMMA, LARGEST_STEP, STEP_SIZES, transitions
from tasks.layout import Prompt

LARGEST_INVERSE_TEMPERATURE = 100.0


@dataclass(frozen=True)
class SoftmaxTD:
    """TD(0) with the softmax kernel over context states in place of the linear one."""

    n_steps: int
    step_size: float | Tensor = constant(0.0, LARGEST_STEP, STEP_SIZES, per_step=True)
    gamma: float | Tensor = constant(0.0, LARGEST_GAMMA, GAMMAS)
    inverse_temperature: float | Tensor = constant(0.0, LARGEST_INVERSE_TEMPERATURE, (1.0, 5.0, 0.2))

    def __call__(self, prompt: Prompt) -> Trace:
        values, td_errors = zip(*self._steps(prompt), strict=True)
        return Trace(stack_steps(list(values)), internals={"td_error": stack_steps(list(td_errors))})

    def predict(self, prompt: Prompt) -> Float[Tensor, "*batch queries 1"]:
        *_, (values, _td_error) = self._steps(prompt)
        return values

    def _steps(self, prompt: Prompt) -> Iterator[tuple[Tensor, Tensor]]:
        """Values [*batch, queries, 1] of the queries and TD errors [*batch, n], from step 0 on.

        The errors are closed under a step, delta <- delta + alpha (gamma K' - K) delta with K, K' the kernels at the
        phi_k and the phi'_k: no value but the queries' need be kept.
        """
        phi, next_phi, delta = transitions(prompt)
        here, ahead, asked = (
            self._kernel(x, phi) for x in (phi, next_phi, prompt.layout.read(prompt.query_tokens, "features"))
        )
        change = as_constant(self.gamma, phi, trailing=2) * ahead - here
        values = torch.zeros_like(asked[..., 0, None])
        yield values, delta
        for step_size in per_step(self.step_size, self.n_steps, phi):
            error = (step_size * delta)[..., None]
            values = values + asked @ error
            delta = delta + (change @ error)[..., 0]
            yield values, delta

    def _kernel(self, states: Tensor, phi: Tensor) -> Float[Tensor, "*batch states n"]:
        return torch.softmax(as_constant(self.inverse_temperature, phi, trailing=2) * (states @ phi.mT), -1)
