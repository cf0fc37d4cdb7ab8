"""The probability of being the largest, against SciPy's adaptive quadrature."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from algorithms.optimality import beta_optimality, gaussian_optimality


def largest(laws: list[Any], low: float, high: float, a: int) -> float:
    """int f_a prod_{b != a} F_b, cut where a law has its middle."""

    def integrand(x: float) -> float:
        return laws[a].pdf(x) * np.prod([law.cdf(x) for b, law in enumerate(laws) if b != a])

    middles = sorted(float(np.clip(law.mean(), low + 1e-3, high - 1e-3)) for law in laws)
    return float(integrate.quad(integrand, low, high, epsabs=1e-12, limit=400, points=middles)[0])


@pytest.mark.parametrize("largest_count", [5, 40, 99])
def test_betas(largest_count: int) -> None:
    random = np.random.default_rng(largest_count)
    pulls = random.integers(0, largest_count + 1, 4)
    rewards = random.binomial(pulls, random.uniform(size=4))
    wins, losses = 1.0 + rewards, 1.0 + pulls - rewards
    laws = [stats.beta(w, v) for w, v in zip(wins, losses, strict=True)]
    expected = [largest(laws, 0, 1, a) for a in range(4)]
    assert beta_optimality(torch.tensor(wins), torch.tensor(losses)).tolist() == pytest.approx(expected, abs=1e-10)
    single = beta_optimality(torch.tensor(wins).float(), torch.tensor(losses).float())
    assert single.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sd", [[0.3, 0.3, 0.3], [0.289, 0.03, 0.1]])
def test_gaussians(sd: list[float]) -> None:
    mean = [0.5, 0.7, 0.4]
    laws = [stats.norm(m, s) for m, s in zip(mean, sd, strict=True)]
    expected = [largest(laws, -3, 4, a) for a in range(3)]
    found = gaussian_optimality(torch.tensor(mean, dtype=torch.float64), torch.tensor(sd, dtype=torch.float64))
    assert found.tolist() == pytest.approx(expected, abs=1e-10)


def test_two_gaussians_have_a_closed_form() -> None:
    """P(x_1 > x_2) = Phi((m_1 - m_2) / sqrt(s_1^2 + s_2^2)), with its slope in m_1."""
    mean = torch.tensor([0.6, 0.4], dtype=torch.float64, requires_grad=True)
    sd = torch.tensor([0.2, 0.1], dtype=torch.float64)
    first = gaussian_optimality(mean, sd)[0]
    (slope,) = torch.autograd.grad(first, mean)
    spread = float(np.hypot(0.2, 0.1))
    assert first.item() == pytest.approx(stats.norm.cdf(0.2 / spread), abs=1e-10)
    assert slope[0].item() == pytest.approx(stats.norm.pdf(0.2 / spread) / spread, abs=1e-8)


def test_equal_arms_share_and_batches_are_independent() -> None:
    wins = torch.tensor([[[3.0, 3.0, 3.0]], [[1.0, 8.0, 2.0]]], dtype=torch.float64)
    losses = torch.tensor([[[2.0, 2.0, 2.0]], [[9.0, 1.0, 2.0]]], dtype=torch.float64)
    laws = beta_optimality(wins, losses)
    assert laws[0, 0].tolist() == pytest.approx([1 / 3] * 3, abs=1e-10)
    assert laws[1, 0].tolist() == pytest.approx(beta_optimality(wins[1, 0], losses[1, 0]).tolist(), abs=1e-12)
