"""The causal networks are their two equations, token by token, with transformer_lens's hooks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.causal import CausalTransformer
from models.causal_config import CausalConfig
from models.config import ConfigError
from models.hooked import run_with_cache
from models.networks import load
from tasks.autoregressive import AutoregressiveFamily
from tasks.layout import Prompt
from tasks.streams import normals

D, LENGTH = 3, 5
PLAIN = CausalConfig(1, D, augmented=False, n_heads=2, context_length=LENGTH)
AUGMENTED = CausalConfig(2, D, n_heads=2)


def network(config: CausalConfig) -> CausalTransformer:
    """Two seeds, float64, weights N(0, 0.3^2)."""
    shapes = config.weight_shapes.items()
    return CausalTransformer(config, {name: 0.3 * normals([0, 1], name, 0, *shape).double() for name, shape in shapes})


def sequences(config: CausalConfig, kind: str = "unitary", tasks: int = 2, length: int = LENGTH) -> Prompt:
    family = AutoregressiveFamily(D, kind, augmented=config.augmented)
    return family.fresh_prompt([0], "test", 0, tasks, length, family.layout)


def naive_plain(model: CausalTransformer, s: NDArray[np.complex128], seed: int) -> NDArray[np.complex128]:
    A, B, P = (getattr(model, name)[seed].detach().numpy() for name in "ABP")
    output = np.zeros_like(s)
    for T in range(2, len(s) + 1):
        for t in range(1, T + 1):
            for a, b in zip(A, B, strict=True):
                score = (s[T - 2].conj() * a * s[t - 1]).sum()
                output[T - 1] += P[T - 1, t - 1] * score * b * s[t - 1]
    return output


def naive_augmented(model: CausalTransformer, e: NDArray[np.complex128], seed: int) -> NDArray[np.complex128]:
    P, Q = (getattr(model, name)[seed].detach().numpy() for name in "PQ")
    for layer in range(model.config.n_layers):
        before = e.copy()
        for T in range(len(e)):
            for t in range(T + 1):
                for p, q in zip(P[layer], Q[layer], strict=True):
                    e[T] += (before[t].conj() @ q @ before[T]) * (p @ before[t])
    return e[:, :D]


@pytest.mark.parametrize("kind", ["unitary", "haar"])
@pytest.mark.parametrize(("config", "naive"), [(PLAIN, naive_plain), (AUGMENTED, naive_augmented)])
def test_hooked_forward_is_the_equation(config: CausalConfig, naive: Callable[..., NDArray], kind: str) -> None:
    model, prompt = network(config), sequences(config, kind)
    predictions = model.predict(prompt).detach()
    assert predictions.shape == (2, 2, LENGTH, D)
    assert predictions.is_complex() == (kind == "unitary")
    for seed in range(2):
        for task in range(2):
            tokens = prompt.tokens[0, task].numpy().copy()
            np.testing.assert_allclose(predictions[seed, task], naive(model, tokens, seed), atol=1e-12)


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_no_prefix_sees_what_comes_after_it(config: CausalConfig) -> None:
    model, prompt = network(config), sequences(config)
    tokens = prompt.tokens.clone()
    tokens[..., 3, :] += 1.0
    moved = (model.predict(replace(prompt, tokens=tokens)) - model.predict(prompt)).abs().amax((0, 1, 3))
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 1e-6).all()


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_every_hook_has_the_name_and_shape_of_transformer_lens(config: CausalConfig) -> None:
    model, prompt = network(config), sequences(config)
    width = model.stream.width
    shapes = {
        "hook_resid_pre": (2, 2, LENGTH, width),
        "attn.hook_q": (2, 2, 2, LENGTH, width),
        "attn.hook_k": (2, 2, 2, LENGTH, width),
        "attn.hook_v": (2, 2, 2, LENGTH, width),
        "attn.hook_attn_scores": (2, 2, 2, LENGTH, LENGTH),
        "attn.hook_pattern": (2, 2, 2, LENGTH, LENGTH),
        "attn.hook_z": (2, 2, 2, LENGTH, width),
        "hook_attn_out": (2, 2, LENGTH, width),
        "hook_resid_post": (2, 2, LENGTH, width),
    }
    cache = run_with_cache(model, prompt, [f"blocks.0.{name}" for name in shapes])
    assert {name.removeprefix("blocks.0."): tuple(x.shape) for name, x in cache.items()} == shapes
    last = f"blocks.{config.n_layers - 1}.hook_resid_post"
    read = model.read_out(run_with_cache(model, prompt, [last])[last], prompt)
    torch.testing.assert_close(read, model.predict(prompt), rtol=0, atol=0)


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_a_folder_holds_the_network(config: CausalConfig, tmp_path: Path) -> None:
    model = network(config)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert loaded.config == config
    assert all(torch.equal(weight, loaded.get_parameter(name)) for name, weight in model.named_parameters())
    assert "continues sequences" in (tmp_path / "README.md").read_text()


def test_what_it_cannot_read_is_said() -> None:
    model = network(PLAIN)
    with pytest.raises(ConfigError, match="prompt of 6 states; this network has positions for 5"):
        model.predict(sequences(PLAIN, length=6))
    with pytest.raises(ConfigError, match="not causal"):
        model.predict(replace(sequences(PLAIN), causal=False))
    with pytest.raises(ConfigError, match="n_layers is 2"):
        replace(PLAIN, n_layers=2)
