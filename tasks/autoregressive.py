"""In-context autoregression: s_{t+1} = W s_t without noise, W drawn anew for every sequence (arXiv 2402.05787).

A prompt is s_1, ..., s_T, or the augmented tokens (0, s_t, s_{t-1}) with s_0 = 0; every prefix is asked for the next
state. All states have norm one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from tasks.errors import ConfigError, require
from tasks.layout import Prompt, TokenLayout, state_layout
from tasks.orthogonal import haar, rotation_blocks
from tasks.streams import normals, uniforms

KINDS = ("unitary", "orthogonal", "haar")
STARTS = ("ones", "random")


@dataclass(frozen=True)
class AutoregressiveFamily:
    """A distribution over linear dynamical systems that keep the norm.

    kind: W is diagonal with entries exp(i theta / phase_scale) (unitary); rotates the planes (2i, 2i + 1) by
    theta / phase_scale, so that its eigenvalues are conjugate pairs (orthogonal); or is uniform on O(d) (haar). All
    theta ~ U(0, 2 pi). The W of the first two kinds commute with one another, those of the last do not.

    first: s_1 has equal entries 1 / sqrt(d) (ones), or is uniform on the sphere (random; real for all kinds).
    """

    d_features: int = 5
    kind: str = "unitary"
    phase_scale: float = 1.0
    first: str = "ones"
    augmented: bool = True

    def __post_init__(self) -> None:
        require("kind", self.kind, KINDS)
        require("first", self.first, STARTS)
        if self.d_features < 1 or (self.kind == "orthogonal" and self.d_features % 2):
            raise ConfigError(
                f"d_features is {self.d_features}; allowed: a whole number of at least 1, even where kind is orthogonal"
            )
        if not self.phase_scale > 0 or (self.kind == "haar" and self.phase_scale != 1):
            raise ConfigError(f"phase_scale is {self.phase_scale}; allowed: a number above 0, and 1 where kind is haar")

    @property
    def layout(self) -> TokenLayout:
        """The tokens of its prompts."""
        return state_layout(self.d_features, augmented=self.augmented)

    def operators(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> Inexact[Tensor, "seeds n d d"]:
        """W of n sequences per seed, complex where unitary, in double precision: batch `index` of `purpose`."""
        d = self.d_features
        if self.kind == "haar":
            return haar(normals(seeds, f"{purpose}/operator", index, n, d, d).double())
        n_phases = d if self.kind == "unitary" else d // 2
        draws = uniforms(seeds, f"{purpose}/operator", index, n, n_phases).double()
        phases = 2 * torch.pi * draws / self.phase_scale
        return torch.diag_embed(torch.exp(1j * phases)) if self.kind == "unitary" else rotation_blocks(phases)

    def states(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, n_states: int
    ) -> Inexact[Tensor, "seeds n states d"]:
        """s_1, s_2, ... of the n operators of batch `index`, one sequence each."""
        operators = self.operators(seeds, purpose, index, n)
        states = [self._first(seeds, purpose, index, n).to(operators)]
        for _ in range(n_states - 1):
            states.append((operators @ states[-1][..., None])[..., 0])
        return torch.stack(states, -2)

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """n causal prompts of context_length states per seed, batch axes (seeds, n), in double precision.

        Raises ConfigError for a layout that is not the family's.
        """
        if layout != self.layout:
            raise ConfigError(
                f"the layout has the blocks {', '.join(name for name, _ in layout.blocks)} over {layout.d_features} "
                f"features, but augmented is {self.augmented} and d_features {self.d_features}; give the family's own"
            )
        states = self.states(seeds, purpose, index, n, context_length + 1)
        tokens = states[..., :-1, :]
        if self.augmented:
            previous = torch.nn.functional.pad(tokens[..., :-1, :], (0, 0, 1, 0))
            tokens = torch.cat([torch.zeros_like(tokens), tokens, previous], -1)
        return Prompt(
            tokens=tokens,
            layout=layout,
            queries=torch.arange(context_length),
            answers=states[..., 1:, :],
            task=torch.arange(n).expand(len(seeds), n),
            weights=torch.ones(len(seeds), n, context_length, dtype=torch.float64),
            causal=True,
        )

    def _first(self, seeds: Sequence[int], purpose: str, index: int, n: int) -> Float[Tensor, "seeds n d"]:
        if self.first == "ones":
            return torch.full((len(seeds), n, self.d_features), self.d_features**-0.5, dtype=torch.float64)
        draws = normals(seeds, f"{purpose}/first", index, n, self.d_features).double()
        return draws / draws.norm(dim=-1, keepdim=True)
