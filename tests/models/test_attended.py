"""The forward of training without hooks is the hooked one, in values and in gradients."""

from collections.abc import Callable

import pytest
import torch

from models.attended import attended_values, is_plain
from models.config import LinearTransformerConfig, Mask, RecurrentConfig, ValueTransformerConfig
from models.networks import Network, NetworkConfig, build, initial_weights
from tasks.layout import Prompt

PLAIN = [
    LinearTransformerConfig(n_layers, looped, 3, activation=activation)
    for activation in ("relu", "softmax", "softmax-over-queries")
    for n_layers, looped in ((1, True), (3, True), (2, False))
]
OTHERS = [
    LinearTransformerConfig(2, True, 3),
    LinearTransformerConfig(2, True, 3, activation="relu", masks=(Mask(), Mask("query", 0.5))),
    ValueTransformerConfig(3, 3, looped=True, d_mlp=8),
    ValueTransformerConfig(2, 3, looped=False, d_mlp=8),
    RecurrentConfig(2, 3),
]


def network(config: NetworkConfig) -> Network:
    """Two seeds, float64, weights ten times as large as untrained ones."""
    return build(config, {name: 10 * w.double() for name, w in initial_weights(config, [0, 1]).items()})


@pytest.mark.parametrize("config", [*PLAIN, *OTHERS], ids=str)
def test_values_and_gradients_are_those_of_the_hooked_forward(
    config: NetworkConfig, make_prompt: Callable[..., Prompt]
) -> None:
    model, prompt = network(config), make_prompt(seeds=2).one_query_each()
    fast, hooked = attended_values(model, prompt), model.predict(prompt)[..., 0, 0]
    torch.testing.assert_close(fast, hooked, rtol=0, atol=1e-12)
    weights = list(model.parameters())
    gradients = [torch.autograd.grad(values.square().sum(), weights) for values in (fast, hooked)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    if isinstance(config, LinearTransformerConfig):
        assert is_plain(config) == (config in PLAIN)
