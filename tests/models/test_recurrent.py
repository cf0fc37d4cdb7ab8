"""The recurrent control is torch's own tanh RNN, one per seed, and every query continues from the context's end."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from models.config import RecurrentConfig
from models.hooked import run_with_cache
from models.networks import initial_weights
from models.recurrent import RecurrentNetwork
from tasks.layout import Prompt


def network(config: RecurrentConfig) -> RecurrentNetwork:
    weights = {name: w.double() for name, w in initial_weights(config, [0, 1]).items()}
    ramp = {name: torch.linspace(-0.3, 0.4, w.numel()).view_as(w).double() for name, w in weights.items()}
    return RecurrentNetwork(config, {name: ramp[name] if name.startswith("b") else w for name, w in weights.items()})


@pytest.mark.parametrize("n_layers", [1, 3])
def test_it_is_the_rnn_of_torch(n_layers: int, make_prompt: Callable[..., Prompt]) -> None:
    model, prompt = network(RecurrentConfig(n_layers, 3, d_hidden=5)), make_prompt().one_query_each()
    weights = {name: w.detach() for name, w in model.named_parameters()}
    for seed in range(2):
        rnn = torch.nn.RNN(7, 5, n_layers, batch_first=True, dtype=torch.float64)
        for layer in range(n_layers):
            w_x = weights["W_E"][seed] if layer == 0 else weights["W_x"][seed, layer - 1]
            own = {"weight_ih": w_x.T, "weight_hh": weights["W_h"][seed, layer].T, "bias_ih": weights["b"][seed, layer]}
            for name, value in {**own, "bias_hh": torch.zeros(5)}.items():
                getattr(rnn, f"{name}_l{layer}").data.copy_(value)
        states, _ = rnn(prompt.tokens[0])
        expected = states[:, -1] @ weights["W_U"][seed] + weights["b_U"][seed]
        torch.testing.assert_close(model.predict(prompt)[seed, :, 0], expected, rtol=0, atol=1e-12)


def test_queries_do_not_see_each_other_wherever_they_stand(make_prompt: Callable[..., Prompt]) -> None:
    model, prompt = network(RecurrentConfig(2, 3)), make_prompt()
    alone = model.predict(prompt.one_query_each()).unflatten(1, (3, 6))[..., 0, :]
    torch.testing.assert_close(model.predict(prompt), alone, rtol=0, atol=1e-12)
    order = torch.tensor([12, 0, 1, 13, 14, *range(2, 12), 15, 16, 17])
    moved = replace(prompt, tokens=prompt.tokens[..., order, :], queries=torch.tensor([0, 3, 4, 15, 16, 17]))
    torch.testing.assert_close(model.predict(moved), alone, rtol=0, atol=1e-12)


def test_the_order_of_the_context_matters(make_prompt: Callable[..., Prompt]) -> None:
    """Unlike attention's, whose context is a set."""
    model, prompt = network(RecurrentConfig(2, 3)), make_prompt()
    reversed_context = prompt.tokens[..., torch.tensor([*range(11, -1, -1), *range(12, 18)]), :]
    assert (model.predict(replace(prompt, tokens=reversed_context)) - model.predict(prompt)).abs().max() > 1e-3


def test_hooks_hold_the_states(make_prompt: Callable[..., Prompt]) -> None:
    model, prompt = network(RecurrentConfig(2, 3, d_hidden=5)), make_prompt()
    names = [f"layers.{layer}.{hook}" for layer in range(2) for hook in ("hook_pre", "hook_hidden")]
    cache = run_with_cache(model, prompt, names)
    assert {tuple(state.shape) for state in cache.values()} == {(2, 3, 18, 5)}
    torch.testing.assert_close(cache["layers.1.hook_hidden"], model(prompt))
