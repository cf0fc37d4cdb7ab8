"""How a token is cut into named slices, and what a prompt is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Inexact, Int
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """Names the slices of a token; constructions and weight checks share these names.

    `blocks` lists (name, width) in order. `discount` is the factor that `next_features` already carries
    (the papers put gamma * phi' in the prompt; average-reward prompts carry phi' itself, discount 1).
    """

    blocks: tuple[tuple[str, int], ...]
    discount: float = 1.0

    @cached_property
    def slices(self) -> dict[str, slice]:
        ends = accumulate(width for _, width in self.blocks)
        return {name: slice(end - width, end) for (name, width), end in zip(self.blocks, ends, strict=True)}

    @property
    def width(self) -> int:
        return sum(width for _, width in self.blocks)

    @property
    def d_features(self) -> int:
        return dict(self.blocks)["features"]

    @property
    def target(self) -> str:
        """The name of the block that is learnt from: rewards, labels, or the states themselves."""
        return next(name for name in ("label", "reward", "features") if name in self)

    def __contains__(self, name: str) -> bool:
        return name in self.slices

    def __getitem__(self, name: str) -> slice:
        """The slice of a named block. Raises KeyError that lists the names there are."""
        if name not in self.slices:
            raise KeyError(f"no block {name!r} in this token; it has {', '.join(self.slices)}")
        return self.slices[name]

    def read(self, tokens: Tensor, name: str) -> Tensor:
        """The named block of every token, [..., tokens, width of the block]."""
        return tokens[..., self[name]]

    def block(self, matrix: Tensor, row: str, column: str) -> Tensor:
        """A view of the named block of a [..., width, width] matrix: writing to it writes to the matrix."""
        return matrix[..., self[row], self[column]]


def transition_layout(d_features: int, *, discount: float, memory: bool = False) -> TokenLayout:
    """Token (phi, discount * phi', reward[, memory]) of arXiv 2405.13861, section 3 and Theorem 3."""
    blocks = [("features", d_features), ("next_features", d_features), ("reward", 1)]
    return TokenLayout((*blocks, ("memory", 1)) if memory else tuple(blocks), discount)


def labelled_layout(d_features: int) -> TokenLayout:
    """Token (x, y) of in-context regression; a query holds y = 0 (section 2 of arXiv 2306.00297)."""
    return TokenLayout((("features", d_features), ("label", 1)))


def state_layout(d_features: int, *, augmented: bool) -> TokenLayout:
    """Token s_t of in-context autoregression, or augmented (0, s_t, s_{t-1}) (arXiv 2402.05787)."""
    blocks = (("output", d_features), ("features", d_features), ("previous", d_features))
    return TokenLayout(blocks if augmented else blocks[1:2])


@dataclass(frozen=True)
class Prompt:
    """A batch of prompts: context tokens, query tokens and the answers a perfect predictor would give.

    Tokens are rows (the papers stack them as columns). Batch axes are (seeds, tasks): one network of an ensemble per
    seed, or size 1 where all seeds read the same prompts. `queries` holds the positions of the query tokens, which
    attention never uses as keys; `weights` says how much each query counts (the stationary distribution, say).
    `task` numbers the tasks: whatever is split or bootstrapped is split by it.

    A causal prompt is a sequence whose every prefix is asked for what comes next: all tokens are queries, and each is
    context for itself and for those after it. Its tokens and answers may be complex.
    """

    tokens: Inexact[Tensor, "*batch tokens width"]
    layout: TokenLayout
    queries: Int[Tensor, " queries"]
    answers: Inexact[Tensor, "*batch queries out"]
    task: Int[Tensor, "*batch"]
    weights: Float[Tensor, "*batch queries"]
    causal: bool = False

    def __post_init__(self) -> None:
        if self.tokens.shape[-1] != self.layout.width:
            raise ValueError(
                f"tokens are {self.tokens.shape[-1]} wide, but the layout "
                f"{' + '.join(f'{name} {width}' for name, width in self.layout.blocks)} needs {self.layout.width}"
            )

    @cached_property
    def is_context(self) -> Tensor:
        """[tokens] true where a token is context, false where it is a query alone."""
        context = torch.ones(self.tokens.shape[-2], dtype=torch.bool, device=self.tokens.device)
        return context if self.causal else context.index_fill(0, self.queries, False)

    @cached_property
    def context(self) -> Tensor:
        """[*batch, n, width] the context tokens in order."""
        return self.tokens[..., self.is_context, :]

    @cached_property
    def query_tokens(self) -> Tensor:
        """[*batch, queries, width]"""
        return self.tokens[..., self.queries, :]

    def select(self, index: slice | Tensor) -> Prompt:
        """The prompts of the tasks at `index` (the last batch axis)."""
        return replace(
            self,
            tokens=self.tokens[..., index, :, :],
            answers=self.answers[..., index, :, :],
            task=self.task[..., index],
            weights=self.weights[..., index, :],
        )

    def one_query_each(self) -> Prompt:
        """Every query in a prompt of its own: tasks [seeds, tasks * queries], the queries of a task side by side."""
        n_queries = len(self.queries)
        context = self.context[..., None, :, :].expand(*self.context.shape[:-2], n_queries, -1, -1)
        tokens = torch.cat([context, self.query_tokens[..., None, :]], -2).flatten(-4, -3)
        return Prompt(
            tokens=tokens,
            layout=self.layout,
            queries=torch.tensor([tokens.shape[-2] - 1]),
            answers=self.answers.flatten(-3, -2)[..., None, :],
            task=self.task.repeat_interleave(n_queries, -1),
            weights=self.weights.flatten(-2, -1)[..., None],
        )

    def to(self, dtype: torch.dtype) -> Prompt:
        """The same prompt at another precision (a real type; complex tokens stay complex)."""

        def cast(x: Tensor) -> Tensor:
            return x.to(dtype.to_complex() if x.is_complex() else dtype)

        return replace(self, tokens=cast(self.tokens), answers=cast(self.answers), weights=self.weights.to(dtype))


@runtime_checkable
class PromptSource(Protocol):
    """A distribution over tasks, each asked as one prompt."""

    def fresh_prompt(
        self, seeds: Sequence[int], purpose: str, index: int, n: int, context_length: int, layout: TokenLayout
    ) -> Prompt:
        """A context of each of n tasks per seed, batch axes (seeds, n)."""
        ...
