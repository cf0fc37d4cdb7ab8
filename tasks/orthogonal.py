"""Random orthogonal matrices: Haar's law, and those that share their invariant planes and so commute."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def haar(draws: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch d d"]:
    """Uniform on O(d) where the draws are N(0, 1).

    The Q of their QR decomposition, its columns signed such that R has a positive diagonal (arXiv math-ph/0609050).
    """
    q, r = torch.linalg.qr(draws)
    return q * r.diagonal(dim1=-2, dim2=-1).sgn()[..., None, :]


def rotation_blocks(angles: Float[Tensor, "*batch planes"]) -> Float[Tensor, "*batch d d"]:
    """A rotation by each angle in a plane of its own, coordinates 2i and 2i + 1: d = 2 planes."""
    cos, sin = angles.cos(), angles.sin()
    matrix = torch.zeros(*angles.shape[:-1], *[2 * angles.shape[-1]] * 2, dtype=angles.dtype)
    even = 2 * torch.arange(angles.shape[-1])
    matrix[..., even, even] = matrix[..., even + 1, even + 1] = cos
    matrix[..., even, even + 1], matrix[..., even + 1, even] = -sin, sin
    return matrix
