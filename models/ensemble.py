"""What networks with named weights share: the ensemble axis, config.json and model.safetensors, the first weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from models.config import ConfigError, FlatConfig
from models.files import read_tensors, require_finite, write_json, write_tensors
from models.folder import read_json
from models.hooked import HookedRootModule
from tasks.streams import normals

# Written as README.md beside the weights, so that a folder pushed to the Hugging Face Hub says what it holds.
MODEL_CARD = """\
---
{{ card_data }}
---

# A value estimator that learns in context

An ensemble: every tensor of `model.safetensors` has the seeds in front. `config.json` names the network; in a checkout
of learnscope, `models.networks.load(FOLDER)` loads it.
"""

Member = TypeVar("Member", bound="Ensemble")


class Ensemble(HookedRootModule, PyTorchModelHubMixin, model_card_template=MODEL_CARD):
    """One network per seed; weights [seeds, *config.weight_shapes[name]] by name, each a parameter of that name."""

    config_type: ClassVar[type[FlatConfig]]

    def __init__(self, config: FlatConfig, weights: Mapping[str, Tensor]) -> None:
        """Raises ConfigError where the weights are not those that the config asks for."""
        super().__init__()
        check_weights(config, weights)
        self.config = config
        for name in config.weight_shapes:
            self.register_parameter(name, nn.Parameter(weights[name]))

    @property
    def n_seeds(self) -> int:
        return len(next(self.parameters()))

    def _save_pretrained(self, save_directory: Path) -> None:
        write_tensors(save_directory / "model.safetensors", dict(self.named_parameters()), {"format": "pt"})
        write_json(save_directory / "config.json", self.config.to_json())

    @classmethod
    def _from_pretrained(cls: type[Member], *, model_id: str | Path, **_: Any) -> Member:
        return cls.from_folder(Path(model_id))

    @classmethod
    def from_folder(cls: type[Member], folder: Path) -> Member:
        """Reads config.json and model.safetensors. Raises ArtifactError or ConfigError, a line that names the file."""
        config_path, weights_path = folder / "config.json", folder / "model.safetensors"
        path = config_path
        try:
            config = cls.config_type.from_json(read_json(config_path))
            path = weights_path
            weights, _metadata = read_tensors(weights_path)
            model = cls(config, weights)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        require_finite(weights_path, weights)
        return model


def check_weights(config: FlatConfig, weights: Mapping[str, Tensor]) -> None:
    """Raises ConfigError for missing weights, wrong shapes, numbers of seeds that differ, or no floating point."""
    shapes = config.weight_shapes
    if missing := shapes.keys() - weights.keys():
        raise ConfigError(f"{', '.join(sorted(missing))} missing; a {config.MODEL} has {', '.join(shapes)}")
    seeds = {name: len(weights[name]) if weights[name].ndim else 0 for name in shapes}
    if len({*seeds.values()}) > 1 or 0 in seeds.values():
        raise ConfigError(f"seeds differ, or there are none: {seeds}; every weight needs the same, at least one")
    for name, shape in shapes.items():
        weight = weights[name]
        if tuple(weight.shape[1:]) != shape:
            raise ConfigError(f"{name} has shape {list(weight.shape)}; it needs [seeds, {', '.join(map(str, shape))}]")
        if not weight.is_floating_point() or weight.dtype != weights["W_E" if "W_E" in shapes else "P"].dtype:
            raise ConfigError(f"{name} holds {weight.dtype}; all weights need one floating-point type")


def initial_weights(config: FlatConfig, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Normal matrices of the config's deviations, biases zero; [seeds, *shape] by name, each from its own stream."""
    weights = {}
    for name, shape in config.weight_shapes.items():
        if name.startswith("b"):
            weights[name] = torch.zeros(len(seeds), *shape)
        else:
            weights[name] = config.initial_std(name) * normals(seeds, f"init/{name}", 0, *shape)
    return weights
