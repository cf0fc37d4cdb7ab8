"""Causal networks train as their authors train them, seed by seed, and a killed run ends at the same bits."""

from pathlib import Path

import pytest
import torch

import models.train_causal
import models.training_state
from models.causal_config import CausalConfig, CausalTraining
from models.config import ConfigError
from models.networks import load
from models.train_causal import CausalRecord, train_causal
from tasks.autoregressive import AutoregressiveFamily
from tasks.streams import normals

D, LENGTH = 4, 5
AUGMENTED, PLAIN = CausalConfig(1, D), CausalConfig(1, D, augmented=False, n_heads=3, context_length=LENGTH)


def run(folder: Path, config: CausalConfig = PLAIN, seeds=(0, 1), kind: str = "orthogonal", steps=6) -> CausalRecord:
    training = CausalTraining(LENGTH, steps, 0.01, prompts=3, snapshot_every=2)
    return train_causal(config, training, AutoregressiveFamily(D, kind, augmented=config.augmented), seeds, folder)


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_a_seed_trains_alike_alone_and_beside_others(config: CausalConfig, tmp_path: Path) -> None:
    alone, beside = run(tmp_path / "a", config, [4]), run(tmp_path / "b", config, [1, 4])
    assert alone.step.tolist() == [0, 2, 4, 6]
    for name, weight in alone.weights.items():
        torch.testing.assert_close(weight[:, 0], beside.weights[name][:, 1], rtol=0, atol=1e-6)
        assert (weight[0] != weight[-1]).any()


@pytest.mark.parametrize("config", [PLAIN, AUGMENTED], ids=["plain", "augmented"])
def test_a_killed_run_goes_on_and_a_complete_one_is_loaded(
    config: CausalConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", config)
    monkeypatch.setattr(models.training_state, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    step = models.train_causal._State.step

    def killed(state, *arguments) -> None:
        if state.progress == 3:
            raise KeyboardInterrupt
        step(state, *arguments)

    monkeypatch.setattr(models.train_causal._State, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", config)
    monkeypatch.setattr(models.train_causal._State, "step", step)
    resumed = run(tmp_path / "killed", config)
    assert all(torch.equal(weight, resumed.weights[name]) for name, weight in whole.weights.items())
    assert torch.equal(whole.loss[1:], resumed.loss[1:])

    def unexpected(*_, **__) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(models.train_causal, "finish", unexpected)
    assert torch.equal(run(tmp_path / "whole", config).step, whole.step)
    assert load(tmp_path / "whole").config == config


def authors_loss(A, B, P):
    """The sum over prefixes T = 2, ... of E |sum_t p_t ... - lambda^T|^2 for states of modulus one, rotations, written
    out term by term: every pair of terms (t, j), (u, k) counts where their exponents agree."""
    d, n = A.shape[1], P.shape[0]
    C, total = B.T @ A, torch.zeros((), dtype=A.dtype)

    def exponents(i: int, j: int, t: int, last: int) -> tuple[int, ...]:
        found = [0] * (d // 2)
        found[j // 2] += (-1) ** j * (t - last + 1)
        found[i // 2] += (-1) ** i * (t - 1)
        return tuple(found)

    for last in range(2, n + 1):
        for i in range(d):
            target = [0] * (d // 2)
            target[i // 2] = (-1) ** i * last
            sums = {tuple(target): torch.tensor(-1.0, dtype=A.dtype)}
            for t in range(1, last + 1):
                for j in range(d):
                    key = exponents(i, j, t, last)
                    sums[key] = sums.get(key, 0) + P[last - 1, t - 1] * C[i, j]
            total = total + torch.stack([value.square() for value in sums.values()]).sum()
    return total


def test_a_step_on_our_loss_is_the_authors_step_on_theirs(tmp_path: Path) -> None:
    record = run(tmp_path, seeds=[7], steps=2)
    shapes = PLAIN.weight_shapes.items()
    weights = {name: (0.1 * normals([7], f"init/{name}", 0, *shape))[0].double() for name, shape in shapes}
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.SGD(weights.values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        authors_loss(**weights).backward()
        optimizer.step()
    ours = {name: weight[-1, 0].double() for name, weight in record.weights.items()}
    for name, scale in (("A", 1), ("B", 1), ("P", D)):
        torch.testing.assert_close(ours[name], scale * weights[name].detach(), rtol=0, atol=1e-5)
        moved = (ours[name] - record.weights[name][0, 0]).abs().max()
        assert moved > 1e-3


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    training = CausalTraining(LENGTH)
    with pytest.raises(ConfigError, match="the sequences have d_features 6, augmented False"):
        train_causal(PLAIN, training, AutoregressiveFamily(6, augmented=False), [0], tmp_path)
    with pytest.raises(ConfigError, match="context_length is 6; this network's positions allow 5"):
        train_causal(PLAIN, CausalTraining(6), AutoregressiveFamily(D, augmented=False), [0], tmp_path)
    with pytest.raises(ConfigError, match="plain networks train on unitary or orthogonal"):
        train_causal(PLAIN, training, AutoregressiveFamily(D, "haar", augmented=False), [0], tmp_path)
