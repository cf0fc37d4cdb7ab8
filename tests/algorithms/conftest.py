"""The error of a learner as a polynomial: what tells how fast it may converge."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.polynomial import Chebyshev
from torch import Tensor

from algorithms.examples import LinearLearner
from tasks.layout import Prompt, labelled_layout
from tasks.regression import labelled_prompt


@pytest.fixture
def error_polynomial() -> Callable[[LinearLearner, Tensor], Tensor]:
    def sample(learner: LinearLearner, eigenvalues: Tensor) -> Tensor:
        """p_l(lambda) [steps, eigenvalues], where the error of the weights after l steps is p_l(S) w*.

        On covariates sqrt(d lambda_i) e_i, S is diagonal and its eigenvectors are the coordinates.
        """
        d = len(eigenvalues)
        x = torch.cat([(d * eigenvalues).sqrt().diag(), torch.ones(1, d, dtype=torch.float64)])
        task, labels = torch.zeros(1, 1, dtype=torch.int64), x.sum(-1)  # w* = (1, ..., 1)
        prompt: Prompt = labelled_prompt(
            x[None, None], labels[None, None], labels[None, None, -1:], task, labelled_layout(d)
        )
        weights = learner(prompt).weights
        assert weights is not None
        return 1 - weights[:, 0, 0]

    return sample


@pytest.fixture
def polynomial_degree(error_polynomial: Callable[..., Tensor]) -> Callable[[LinearLearner], int]:
    def degree(learner: LinearLearner) -> int:
        """The degree of the polynomial after the last step, on eigenvalues from 0.2 to 3."""
        nodes = 1.6 + 1.4 * np.cos(np.pi * (np.arange(60) + 0.5) / 60)
        values = error_polynomial(learner, torch.tensor(nodes))[-1].numpy()

        def missed(degree: int) -> float:
            return np.abs(Chebyshev.fit(nodes, values, degree)(nodes) - values).max() / np.abs(values).max()

        return next(k for k in range(60) if missed(k) < 1e-12)

    return degree
