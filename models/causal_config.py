"""What a causal linear-attention network is, as data. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from models.config import PromptConfig
from tasks.errors import ConfigError


@dataclass(frozen=True)
class CausalConfig(PromptConfig):
    """Causal linear attention over the states of a sequence (arXiv 2402.05787): two families of weights.

    augmented: tokens (0, s_t, s_{t-1}), merged weights P and Q per layer and head, no positions. Otherwise tokens s_t
    and one layer with diagonal heads A and B and a positional factor P over context_length states. gamma means nothing.
    """

    MODEL: ClassVar[str] = "causal-linear-attention"

    gamma: float = 1.0
    augmented: bool = True
    n_heads: int = 1
    context_length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.augmented and self.n_layers != 1:
            raise ConfigError(f"n_layers is {self.n_layers}; with augmented false, allowed: 1")

    @property
    def width(self) -> int:
        """Of a token."""
        return 3 * self.d_features if self.augmented else self.d_features

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.augmented:
            return dict.fromkeys(("P", "Q"), (self.n_layers, self.n_heads, self.width, self.width))
        diagonal = dict.fromkeys(("A", "B"), (self.n_heads, self.d_features))
        return {**diagonal, "P": (self.context_length, self.context_length)}

    @property
    def gain(self) -> float:
        return 0.3


@dataclass(frozen=True)
class CausalTraining:
    """How a causal network is trained, on states of norm one.

    Augmented networks: Adam, the learning rate falling to zero along a cosine, on `prompts` fresh sequences a step.
    Plain ones: gradient descent on the population loss of all prefixes of two states or more (scripts of 2402.05787).
    """

    context_length: int = 20
    steps: int = 1000
    learning_rate: float = 0.01
    prompts: int = 64
    snapshot_every: int = 100
