"""The closed form of positional training is gradient descent, step by step, on the network's own loss."""

import pytest
import torch
from torch import Tensor

from models.causal import CausalTransformer
from models.causal_constructions import positional_encoding
from models.positional import descend, lag_gram, null_projector
from tasks.autoregressive import AutoregressiveFamily

N, SAMPLES, RATE = 6, 40, 0.5
FAMILY = AutoregressiveFamily(1, phase_scale=5.0, augmented=False)
PROMPT = FAMILY.fresh_prompt([0, 1], "test", 0, SAMPLES, N, FAMILY.layout)
GRAM = lag_gram(FAMILY.operators([0, 1], "test", 0, SAMPLES)[..., 0, 0].angle(), N)


def network_loss(model: CausalTransformer) -> Tensor:
    """[seeds] over the prefixes of two states or more."""
    error = (model.predict(PROMPT) - PROMPT.answers).abs().square()
    return error[:, :, 1:].mean((1, 2, 3))


def descended(n_steps: int) -> CausalTransformer:
    model = positional_encoding(torch.zeros(2, N, N, dtype=torch.float64))
    optimizer = torch.optim.SGD([model.P], lr=RATE)
    for _ in range(n_steps):
        optimizer.zero_grad()
        network_loss(model).sum().backward()
        optimizer.step()
    return model


def test_it_is_gradient_descent_on_the_networks_loss() -> None:
    model = descended(7)
    fit = descend(GRAM, learning_rate=RATE, target_loss=0.0, max_steps=7)
    assert fit.steps.tolist() == [7, 7]
    torch.testing.assert_close(fit.P, model.P.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(fit.loss, network_loss(model).detach(), rtol=0, atol=1e-12)
    assert (fit.P - descended(8).P.detach()).abs().max() > 1e-4


def test_it_stops_at_the_first_step_that_is_good_enough() -> None:
    fit = descend(GRAM, learning_rate=RATE, target_loss=0.05, max_steps=1000)
    for seed, steps in enumerate(fit.steps.tolist()):
        assert network_loss(descended(steps))[seed] < 0.05 <= network_loss(descended(steps - 1))[seed]


def test_null_directions_are_those_that_no_prediction_sees() -> None:
    """One phase spans a cosine and a sine of six lags."""
    phase = 0.3
    projector = null_projector(lag_gram(torch.full((1, 1), phase, dtype=torch.float64), N), 1e-9)[0]
    assert projector.trace().item() == pytest.approx(N - 2, abs=1e-10)
    torch.testing.assert_close(projector @ projector, projector, rtol=0, atol=1e-10)
    heard = torch.exp(1j * phase * (N - 2 * torch.arange(N, dtype=torch.float64)))
    assert (projector.to(heard) @ heard).abs().max() < 1e-10
