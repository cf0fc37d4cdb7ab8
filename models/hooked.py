"""The one file that imports transformer_lens: hook points, a cache that refuses unknown names, a placebo edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

__all__ = ["HookPoint", "HookedRootModule", "norm_matched_placebo", "run_with_cache", "run_with_hooks"]


def check_hook_names(model: HookedRootModule, names: Iterable[str]) -> None:
    """Raises KeyError that names the unknown hook and the nearest ones there are."""
    for name in names:
        if name not in model.hook_dict:
            near = get_close_matches(name, model.hook_dict, n=3, cutoff=0.0)
            raise KeyError(f"no hook {name!r} in {type(model).__name__}; the nearest are {', '.join(near)}")


def run_with_cache(model: HookedRootModule, inputs: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """The activations at the named hooks. transformer_lens returns an empty cache for a misspelt name; this raises."""
    check_hook_names(model, names)
    _, cache = model.run_with_cache(inputs, names_filter=list(names))
    return {name: cache[name] for name in names}


def run_with_hooks(model: HookedRootModule, inputs: Any, hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Any:
    """The model's output while each (name, function) edits its activation; unknown names raise a clear KeyError."""
    check_hook_names(model, [name for name, _ in hooks])
    return model.run_with_hooks(inputs, fwd_hooks=list(hooks))


def norm_matched_placebo(
    base: Float[Tensor, "*batch d_model"], edited: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "d_model rank"]
) -> Float[Tensor, "*batch d_model"]:
    """Every base moved exactly as far as it was by an edit, but within the span of an orthonormal basis."""
    from transformer_lens.tools.analysis.interchange import NormMatchedPlacebo, SubspaceInterchange

    everywhere = torch.eye(base.shape[-1], dtype=base.dtype)
    return NormMatchedPlacebo(SubspaceInterchange(everywhere), basis)(base, edited)
