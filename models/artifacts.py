"""Run folders: what a run leaves behind, and how it is found again, resumed, or refused.

`<out>/<analysis>/<config hash>-s<first>-<last>/` holds config.json and model.safetensors (the Hugging Face layout, so
the folder can be pushed as it is), training.safetensors (weights, optimiser state and snapshots: what a resume needs),
metrics.jsonl, provenance.json and DONE, written last, with the checksums of the files it vouches for.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.config import ConfigError
from models.files import write_atomically, write_json
from models.folder import ArtifactError, read_config, read_json, remedy
from models.networks import Network, load
from models.policy import PolicyTransformer
from models.policy_config import PolicyConfig

DONE = "DONE"
CARD = "README.md"
NETWORK = ("config.json", "model.safetensors")  # what an inspection needs of a run


def run_folder(out: Path, analysis: str, setting: dict[str, Any], seeds: Sequence[int]) -> Path:
    """The folder of a run: equal settings and seeds give the same one."""
    digest = hashlib.blake2b(json.dumps(setting, sort_keys=True).encode(), digest_size=5).hexdigest()
    return out / analysis / f"{digest}-s{seeds[0]}-{seeds[-1]}"


def is_complete(folder: Path, needed: Collection[str] | None = None) -> bool:
    """Whether DONE stands. Raises ArtifactError, naming the file, where a finished run has since been changed: one of
    those that are `needed`, by default any."""
    if not (folder / DONE).exists():
        return False
    checksums = read_json(folder / DONE)
    if not isinstance(checksums, dict):
        raise ArtifactError(f"{folder / DONE} holds no checksums, as a finished run's does; {remedy(folder)}")
    for name, checksum in checksums.items():
        if needed is not None and name not in needed:
            continue
        path = folder / name
        if not path.exists() or _checksum(path) != checksum:
            state = "is gone" if not path.exists() else "is not the file that the run wrote"
            raise ArtifactError(f"{path} {state}; {remedy(folder)}")
    return True


def mark_done(folder: Path) -> None:
    """Writes DONE, which vouches for every other file of the run but the model card, which is there to be edited."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    write_json(folder / DONE, {name: _checksum(folder / name) for name in names if name not in (DONE, CARD)})


def write_provenance(folder: Path, started: float, **facts: Any) -> None:
    """provenance.json: what ran, with what, where and for how long. `started` is a time.time()."""
    write_json(
        folder / "provenance.json",
        {
            "commit": _commit(),
            "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "versions": {
                "python": platform.python_version(),
                **{n: version(n) for n in ("torch", "numpy", "transformer-lens")},
            },
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "wall_seconds": round(time.time() - started, 1),
            **facts,
        },
    )


def write_metrics(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """metrics.jsonl, one JSON object a line."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(folder / "metrics.jsonl", lambda temporary: temporary.write_text(text))


def load_subject(folder: Path) -> Network:
    """The network that reads prompts in a folder with config.json and model.safetensors, ours or from elsewhere.

    Raises ConfigError or ArtifactError with one clear line that names the file: no such folder, damaged or edited
    files, NaN, wrong shapes or types, a policy.
    """
    network = _load(folder)
    if isinstance(network, PolicyTransformer):
        raise ConfigError(
            f"{folder} holds a {network.config.MODEL}, which reads its own history, not prompts; "
            "inspect it with the --task of a policy: bernoulli-bandit, ring, arrival-ring, tree, chain, dense, "
            "dark-room, dark-room-hard or key-to-door"
        )
    return network


def load_policy(folder: Path) -> PolicyTransformer:
    """The policy in a folder, as `load_subject`. Raises ConfigError or ArtifactError with one clear line."""
    network = _load(folder)
    if not isinstance(network, PolicyTransformer):
        raise ConfigError(
            f"{folder} holds a network that reads prompts; needed: a {PolicyConfig.MODEL}. Inspect this one with "
            "--task boyan-chain, or another task that `learnscope inspect --help` lists for it"
        )
    return network


def _load(folder: Path) -> Network | PolicyTransformer:
    read_config(folder)  # says what is missing before checksums are made
    is_complete(folder, NETWORK)
    return load(folder)


def _checksum(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _commit() -> str | None:
    root = Path(__file__).parent.parent
    try:
        result = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
