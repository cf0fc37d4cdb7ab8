"""What the command line knows of an analysis before it runs: its settings, three presets, and how long each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Preset = Literal["smoke", "laptop", "paper"]


@dataclass(frozen=True)
class Analysis:
    """One line of `learnscope list`: the config class, what each preset changes, how long each takes."""

    config: type
    presets: dict[str, dict[str, Any]]
    minutes: dict[str, str]

    @property
    def question(self) -> str:
        return (self.config.__doc__ or "").strip()

    def preset(self, name: str) -> Any:
        return self.config(preset=name, **self.presets[name])
