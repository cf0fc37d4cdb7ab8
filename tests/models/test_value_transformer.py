"""The transformer with MLPs is its two equations, token by token, with transformer_lens's hooks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config import ConfigError, LinearTransformerConfig, ValueTransformerConfig
from models.hooked import run_with_cache
from models.linear import LinearTransformer
from models.networks import initial_weights
from models.value_transformer import ValueTransformer
from tasks.layout import Prompt

LOOPED, SEPARATE = (ValueTransformerConfig(2, 3, looped=looped, d_mlp=5) for looped in (True, False))


def network(config: ValueTransformerConfig) -> ValueTransformer:
    """Two seeds, float64, weights ten times as large as untrained ones, and biases."""
    weights = {name: 10 * w.double() for name, w in initial_weights(config, [0, 1]).items()}
    ramp = {name: torch.linspace(-0.3, 0.4, w.numel()).view_as(w).double() for name, w in weights.items()}
    return ValueTransformer(config, {name: ramp[name] if name.startswith("b") else w for name, w in weights.items()})


def naive(model: ValueTransformer, prompt: Prompt, seed: int, task: int) -> NDArray[np.float64]:
    weights = {name: w[seed].detach().numpy() for name, w in model.named_parameters()}
    x = prompt.tokens[0, task].numpy().copy()
    n = int(prompt.is_context.sum())
    for layer in range(model.config.n_layers):
        own = {name: w[0 if model.config.looped else layer] for name, w in weights.items()}
        read = x.copy()
        for j in range(len(x)):
            scores = np.array([read[i] @ own["Q"] @ read[j] for i in range(n)])
            pattern = np.exp(scores) / np.exp(scores).sum()
            x[j] = read[j] + own["P"] @ (pattern @ read[:n])
            hidden = np.maximum(own["W_in"].T @ x[j] + own["b_in"], 0)
            x[j] += own["W_out"].T @ hidden + own["b_out"]
    return -x[n:, -1]


@pytest.mark.parametrize("config", [LOOPED, SEPARATE], ids=["looped", "separate"])
def test_hooked_forward_is_the_two_equations(
    config: ValueTransformerConfig, make_prompt: Callable[..., Prompt]
) -> None:
    model, prompt = network(config), make_prompt()
    predictions = model.predict(prompt).detach().numpy()
    assert predictions.shape == (2, 3, 6, 1)
    for seed in range(2):
        for task in range(3):
            np.testing.assert_allclose(predictions[seed, task, :, 0], naive(model, prompt, seed, task), atol=1e-12)


def test_with_silent_mlps_it_is_the_transformer_with_softmax_attention(make_prompt: Callable[..., Prompt]) -> None:
    model, prompt = network(SEPARATE), make_prompt()
    weights = dict(model.named_parameters())
    silent = {name: torch.zeros_like(w) if name in ("W_out", "b_out") else w.detach() for name, w in weights.items()}
    attention = LinearTransformer(
        LinearTransformerConfig(2, False, 3, activation="softmax"),
        *(weights[name].detach()[:, :, None] for name in ("P", "Q")),
    )
    expected = attention.predict(prompt)
    torch.testing.assert_close(ValueTransformer(SEPARATE, silent).predict(prompt), expected, rtol=0, atol=1e-12)
    assert (model.predict(prompt) - expected).abs().max() > 1e-3


def test_every_hook_has_the_name_and_shape_of_transformer_lens(make_prompt: Callable[..., Prompt]) -> None:
    shapes = {
        "hook_resid_pre": (2, 3, 18, 7),
        "attn.hook_q": (2, 3, 18, 7),
        "attn.hook_v": (2, 3, 18, 7),
        "attn.hook_attn_scores": (2, 3, 18, 18),
        "attn.hook_pattern": (2, 3, 18, 18),
        "hook_attn_out": (2, 3, 18, 7),
        "hook_resid_mid": (2, 3, 18, 7),
        "mlp.hook_pre": (2, 3, 18, 5),
        "mlp.hook_post": (2, 3, 18, 5),
        "hook_mlp_out": (2, 3, 18, 7),
        "hook_resid_post": (2, 3, 18, 7),
    }
    names = {f"blocks.{layer}.{name}": shape for layer in range(2) for name, shape in shapes.items()}
    model, prompt = network(LOOPED), make_prompt()
    assert set(model.hook_dict) == set(names)
    cache = run_with_cache(model, prompt, list(names))
    assert {name: tuple(activation.shape) for name, activation in cache.items()} == names
    block = {name: cache[f"blocks.1.{name}"] for name in shapes}
    torch.testing.assert_close(block["hook_resid_pre"] + block["hook_attn_out"], block["hook_resid_mid"])
    torch.testing.assert_close(block["hook_resid_mid"] + block["hook_mlp_out"], block["hook_resid_post"])
    torch.testing.assert_close(model.read_out(block["hook_resid_post"], prompt), model.predict(prompt))
    assert (block["attn.hook_pattern"][..., prompt.queries] == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_in": None}, "W_in missing; a value-transformer has P, Q, W_in"),
        ({"P": torch.zeros(2, 1, 6, 7)}, r"P has shape \[2, 1, 6, 7\]; it needs \[seeds, 1, 7, 7\]"),
        ({"b_in": torch.zeros(3, 1, 5)}, "seeds differ.*'b_in': 3"),
        ({"Q": torch.zeros(2, 1, 7, 7, dtype=torch.int64)}, "Q holds torch.int64; all weights need one floating"),
    ],
    ids=["missing", "shape", "seeds", "type"],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, torch.Tensor | None], message: str) -> None:
    weights = {**initial_weights(LOOPED, [0, 1]), **change}
    with pytest.raises(ConfigError, match=message):
        ValueTransformer(LOOPED, {name: w for name, w in weights.items() if w is not None})
