"""Every kind of network that can be a subject: built from named weights, initialised, read from a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import overload

from torch import Tensor

from models.causal import CausalTransformer
from models.causal_config import CausalConfig
from models.config import FlatConfig, LinearTransformerConfig, RecurrentConfig, ValueTransformerConfig
from models.ensemble import initial_weights as named_initial_weights
from models.folder import AnyConfig, NetworkConfig, read_config
from models.linear import LinearTransformer, xavier_normal
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig
from models.recurrent import RecurrentNetwork
from models.value_transformer import ValueTransformer
from tasks.streams import normals

Network = LinearTransformer | ValueTransformer | RecurrentNetwork | CausalTransformer
NETWORKS: dict[type[AnyConfig], type[Network | PolicyTransformer]] = {
    LinearTransformerConfig: LinearTransformer,
    ValueTransformerConfig: ValueTransformer,
    RecurrentConfig: RecurrentNetwork,
    CausalConfig: CausalTransformer,
    PolicyConfig: PolicyTransformer,
}


@overload
def build(config: NetworkConfig, weights: Mapping[str, Tensor]) -> Network: ...
@overload
def build(config: PolicyConfig, weights: Mapping[str, Tensor]) -> PolicyTransformer: ...
def build(config: AnyConfig, weights: Mapping[str, Tensor]) -> Network | PolicyTransformer:
    """The ensemble with these weights, [seeds, ...] by name. Raises ConfigError where they do not fit the config."""
    match config:
        case LinearTransformerConfig():
            return LinearTransformer(config, weights["P"], weights["Q"])
        case ValueTransformerConfig():
            return ValueTransformer(config, weights)
        case RecurrentConfig():
            return RecurrentNetwork(config, weights)
        case CausalConfig():
            return CausalTransformer(config, weights)
        case PolicyConfig():
            return PolicyTransformer(config, weights)


def initial_weights(config: AnyConfig, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Weights before training, [seeds, ...] by name; a seed's depend on nothing but the seed."""
    if isinstance(config, FlatConfig):
        return named_initial_weights(config, seeds)
    shape = (2, config.n_weight_layers, len(config.masks), config.width, config.width)
    return dict(zip("PQ", xavier_normal(config, normals(seeds, "init", 0, *shape)), strict=True))


def load(folder: Path) -> Network | PolicyTransformer:
    """The network in a folder with config.json and model.safetensors, of the kind that "model" in config.json names.

    Raises ConfigError or ArtifactError with one clear line that names the file.
    """
    return NETWORKS[type(read_config(folder))].from_folder(folder)
