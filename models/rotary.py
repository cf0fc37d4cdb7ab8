"""Rotary positions: queries and keys turned by angles that grow with time, so that scores depend on differences.

Entries i and i + d/2 of a vector at time t turn by t * 10000^(-2i/d) (arXiv 2104.09864, in halves as GPT-NeoX has it).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

BASE = 10_000.0


def rotate(x: Float[Tensor, "*batch pos head d"], times: Int[Tensor, " pos"]) -> Float[Tensor, "*batch pos head d"]:
    """Every position's vectors turned to their times."""
    half = x.shape[-1] // 2
    rates = BASE ** (-torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angles = (times.to(x)[:, None] * rates)[:, None, :]
    cos, sin = angles.cos(), angles.sin()
    left, right = x[..., :half], x[..., half:]
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)
