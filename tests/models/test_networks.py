"""Networks of every kind: saved, loaded by what config.json names, trained by the one trainer."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.artifacts import load_subject
from models.config import ConfigError, LinearTransformerConfig, RecurrentConfig, TrainingConfig, ValueTransformerConfig
from models.files import ArtifactError
from models.networks import NetworkConfig, build, initial_weights
from models.train import train
from tasks.markov_reward import TaskFamily

CONFIGS: list[Any] = [
    LinearTransformerConfig(2, True, 2),
    ValueTransformerConfig(2, 2, looped=False, d_mlp=6),
    RecurrentConfig(2, 2),
    RecurrentConfig(1, 2, d_hidden=3),
]
TRAINING = TrainingConfig(context_length=5, train_tasks=3, windows_per_batch=8)
FAMILY = TaskFamily(n_states=4, d_features=2)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_saved_network_is_read_back(tmp_path: Path, config: NetworkConfig) -> None:
    model = build(config, initial_weights(config, [3, 5]))
    model.save_pretrained(tmp_path)
    for back in (load_subject(tmp_path), type(model).from_pretrained(tmp_path)):
        assert back.config == config
        torch.testing.assert_close(dict(back.named_parameters()), dict(model.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_seed_starts_alike_alone_and_beside_others(config: NetworkConfig) -> None:
    alone, beside = initial_weights(config, [5]), initial_weights(config, [3, 5])
    for name, weight in alone.items():
        assert torch.equal(weight[0], beside[name][1])
        assert name.startswith("b") == bool((weight == 0).all())


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_training_moves_every_weight_and_leaves_a_network(tmp_path: Path, config: NetworkConfig) -> None:
    record = train(config, TRAINING, FAMILY, (0, 1), tmp_path, compiled=False)
    assert record.task_count.tolist() == [0, 3]
    assert not record.diverged()
    loaded = dict(load_subject(tmp_path).named_parameters())
    assert loaded.keys() == record.weights.keys()
    for name, snapshots in record.weights.items():
        assert (snapshots[0] != snapshots[1]).flatten(1).any(-1).all(), name
        assert torch.equal(snapshots[1], loaded[name].detach())


def test_divergence_of_any_weight_is_seen(tmp_path: Path) -> None:
    record = train(CONFIGS[1], TRAINING, FAMILY, (0, 1), tmp_path, compiled=False)
    record.weights["b_out"][-1, 1] = torch.inf
    assert record.diverged() == {1: 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "value-transfomer"}, r"config.json: model is .*did you mean 'value-transformer'"),
        ({"d_mlp": 0}, "config.json: d_mlp is 0; allowed: a whole number of at least 1"),
        ({"d_mlp": "6"}, "d_mlp is '6'"),
        ({"looped": 1}, "looped is 1; allowed: true or false"),
        ({"gamma": 1.5}, "gamma is 1.5; allowed: a number above 0"),
        ({"gama": 0.5}, "key 'gama'; did you mean 'gamma'"),
        ({"d_mlp": 7}, r"model.safetensors: W_in has shape \[1, 2, 5, 6\]; it needs \[seeds, 2, 5, 7\]"),
    ],
    ids=str,
)
def test_a_wrong_config_names_the_file_and_the_nearest(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    build(CONFIGS[1], initial_weights(CONFIGS[1], [0])).save_pretrained(tmp_path)
    config = {key: value for key, value in CONFIGS[1].to_json().items() if key != "gamma" or "gama" not in change}
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ConfigError, match=message):
        load_subject(tmp_path)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "recurrent-network", "n_layers": 2}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigError, match=r"config.json: the config lacks d_features; a recurrent-network needs model"):
        load_subject(tmp_path)


def test_nan_is_refused(tmp_path: Path) -> None:
    weights = initial_weights(CONFIGS[2], [0])
    weights["W_U"][0] = torch.nan
    build(CONFIGS[2], weights).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="W_U has 4 NaN"):
        load_subject(tmp_path)


def test_the_depth_of_separate_layers_divides_the_gain() -> None:
    assert (CONFIGS[1].gain, replace(CONFIGS[1], looped=True).gain, CONFIGS[2].gain) == (0.05, 0.1, 1.0)
