"""What networks are trained for in in-context regression, and which of their weights may move (arXiv 2306.00297).

A prompt counts only through the moments G = (1/n) sum_j z_j z_j^T of its tokens z = (x, y), its query and its answer
(`models.windowed`): its cost does not depend on the context length. Batch axes come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.config import LinearTransformerConfig, RegressionTraining
from models.linear import layout_of
from models.windowed import last_entries
from tasks.layout import Prompt, TokenLayout
from tasks.streams import normals

Weight = Float[Tensor, "seeds layers heads width width"]
Block = tuple[str, str]

# The blocks of P and Q that each family trains. Where the label row of P is not free, it is gradient descent's.
FAMILIES: dict[str, dict[str, tuple[Block, ...]]] = {
    "sparse": {"P": (), "Q": (("features", "features"),)},
    "full": {"P": (("features", "features"),), "Q": (("features", "features"),)},
}


class Examples(NamedTuple):
    """Prompts with one query each: moments [width, width, seeds, prompts], queries [d, seeds, prompts], answers
    [seeds, prompts]."""

    moments: Tensor
    queries: Tensor
    answers: Tensor

    @classmethod
    def read(cls, prompt: Prompt) -> Examples:
        """Those of a prompt with batch axes (seeds, prompts)."""
        context, layout = prompt.context, prompt.layout
        return cls(
            (context.mT @ context / context.shape[-2]).permute(2, 3, 0, 1).contiguous(),
            layout.read(prompt.query_tokens, "features")[..., 0, :].permute(2, 0, 1).contiguous(),
            prompt.answers[..., 0, 0].contiguous(),
        )

    def members(self) -> list[Examples]:
        """Those of each seed alone."""
        parts = zip(*(x.split(1, -2) for x in self), strict=True)
        return [Examples(*(x.contiguous() for x in part)) for part in parts]


def residuals(
    P: Tensor, Q: Tensor, examples: Examples, config: LinearTransformerConfig
) -> Float[Tensor, "seeds prompts"]:
    """TF - y for P and Q [layers, width, width, seeds, 1], or a pair of them for every prompt."""
    entries = last_entries(P, Q, examples.moments, examples.queries, config.n_layers)
    return config.readout_sign * entries - examples.answers


def batch_last(weight: Weight) -> Float[Tensor, "layers width width seeds 1"]:
    """A view of a network's weights as `residuals` takes them."""
    return weight[:, :, 0].permute(1, 2, 3, 0)[..., None]


def trainable(family: str, layout: TokenLayout) -> dict[str, Bool[Tensor, "width width"]]:
    """Where P and Q of a family are free (section 4): "sparse", Q's block of features; "full", P's too; "free", all."""
    masks = {name: torch.full((layout.width, layout.width), family == "free") for name in "PQ"}
    for name, blocks in FAMILIES.get(family, {}).items():
        for row, column in blocks:
            layout.block(masks[name], row, column)[:] = True
    return masks


def initial_weights(
    config: LinearTransformerConfig, training: RegressionTraining, seeds: Sequence[int]
) -> dict[str, Weight]:
    """N(0, initial_std^2) where the family is free, and elsewhere zero but for P[label, label] = 1."""
    layout, shape = layout_of(config), (config.n_weight_layers, 1, config.width, config.width)
    draws = training.initial_std * normals(seeds, "init", 0, 2, *shape)
    fixed = torch.zeros(config.width, config.width)
    layout.block(fixed, "label", "label")[:] = 1.0
    masks = trainable(training.family, layout)
    return {"P": torch.where(masks["P"], draws[:, 0], fixed), "Q": torch.where(masks["Q"], draws[:, 1], 0.0)}
