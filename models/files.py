"""Reading and writing files so that nothing is half-written and whatever is damaged is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.folder import ArtifactError, remedy


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary name in the same folder, then renames: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(data, indent=2) + "\n"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, dict(metadata or {})))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors and the metadata of a safetensors file. Raises ArtifactError where it is missing or damaged."""
    if not path.is_file():
        raise ArtifactError(f"{path.parent} has no {path.name}")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); {remedy(path.parent)}") from error


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ArtifactError, with the count, where a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise ArtifactError(
                f"{path}: {name} has {bad} NaN or infinite of {tensor.numel()} weights; did training diverge?"
            )
