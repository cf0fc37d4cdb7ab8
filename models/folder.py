"""What stands in the folder of a network, told without torch: so a wrong folder is named before anything loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.causal_config import CausalConfig
from models.config import MODEL, ConfigError, LinearTransformerConfig, RecurrentConfig, ValueTransformerConfig
from models.policy_config import PolicyConfig
from tasks.errors import LearnscopeError, require

NetworkConfig = LinearTransformerConfig | ValueTransformerConfig | RecurrentConfig | CausalConfig
AnyConfig = NetworkConfig | PolicyConfig  # the former read prompts, the latter their own histories
CONFIGS: dict[str, type[AnyConfig]] = {
    MODEL: LinearTransformerConfig,
    ValueTransformerConfig.MODEL: ValueTransformerConfig,
    RecurrentConfig.MODEL: RecurrentConfig,
    CausalConfig.MODEL: CausalConfig,
    PolicyConfig.MODEL: PolicyConfig,
}
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SAVE = f"safetensors.torch.save_file(tensors, '{WEIGHTS}')"
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
OURS = ("training.safetensors", "provenance.json")  # what only a run leaves behind


class ArtifactError(LearnscopeError):
    """A file or folder that cannot be used; the message names it and says what to do."""


def read_config(folder: Path) -> AnyConfig:
    """What the network in a folder is, of the kind that "model" in its config.json names.

    Raises ArtifactError or ConfigError with one clear line: no such folder, a file missing, no JSON, wrong settings.
    """
    needed = f"the folder of a network holds {CONFIG} and {WEIGHTS}, as <out>/subjects/<run> does"
    if not folder.is_dir():
        what = f"{folder} is a file" if folder.exists() else f"there is no folder {str(folder)!r}"
        raise ArtifactError(f"{what}; {needed}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        inside = min(folder.glob(f"*/{CONFIG}"), default=None)
        hint = f"did you mean {inside.parent}? {needed}" if inside else needed
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if WEIGHTS in missing and pickles:
            hint = f"{pickles[0]} looks like a pickle, which can run anything when read: save its tensors with {SAVE}"
        fix = remedy(folder) if is_run(folder) else hint
        raise ArtifactError(f"{folder} has no {' and no '.join(missing)}; {fix}")
    data = read_json(folder / CONFIG)
    name = data.get("model", MODEL) if isinstance(data, dict) else MODEL
    try:
        require("model", name, tuple(CONFIGS))
        return CONFIGS[name].from_json(data)
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error


def read_json(path: Path) -> Any:
    """Raises ArtifactError where the file is missing or is not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path.parent} has no {path.name}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not text, numbers too long, or nested too deep
        raise ArtifactError(f"{path} is not valid JSON ({error}); {remedy(path.parent)}") from error


def remedy(folder: Path) -> str:
    """What to do about a damaged file: only what a run of ours left behind can be made again."""
    return f"restore it, or delete {folder} and run again" if is_run(folder) else "copy it again"


def is_run(folder: Path) -> bool:
    """Whether a run of ours made the folder."""
    return any((folder / name).exists() for name in OURS)
