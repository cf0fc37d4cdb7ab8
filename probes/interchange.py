"""Interchange in a policy: swap what a subspace of the query's residual stream holds between two contexts.

    x_A <- x_A + U U^T (x_B - x_A),   U [d_model, rank] orthonormal

where U spans the directions in which activations vary with what a linear probe reads. A policy that uses what the
probe reads then moves its logits towards those of context B; one that carries it idly, or computes with another copy,
does not. Everything (U = 1) at the query, or at the memory tokens before it, says where the difference between the
contexts is held at all (Geiger et al. 2021, arXiv 2106.02997).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from models.hooked import run_with_cache, run_with_hooks
from models.policy import PolicyTransformer
from tasks.interaction import Interaction
from tasks.streams import normals

SMALLEST_PART = 1e-2  # of the largest one, below which a direction is none

Edit = Callable[[Tensor, Tensor], Tensor]
"""From the streams of A and B after a layer, [seeds, tasks, pos, d_model], to what A goes on with."""


def stream_hooks(policy: PolicyTransformer) -> list[str]:
    """The residual stream as it comes in, and after every layer."""
    return ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(policy.config.n_layers))]


@torch.no_grad()
def policy_stream(policy: PolicyTransformer, history: Interaction) -> Float[Tensor, "depths seeds tasks pos d_model"]:
    """The residual stream of every token; depth 0 is the embedding, depth l what layer l leaves."""
    names = stream_hooks(policy)
    found = run_with_cache(policy, history, names)
    return torch.stack([found[name] for name in names])


def probe_basis(
    coef: Float[Tensor, "seeds d_model numbers"], resid: Float[Tensor, "seeds tasks d_model"]
) -> Float[Tensor, "seeds d_model numbers"]:
    """Orthonormal, spanning S W, S the covariance of activations: where they vary with what a probe W reads.

    W itself cancels what else varies, along directions in which next to nothing does; swapping those moves nothing even
    where the quantity is used (Haufe et al. 2014). Columns of zeros stand for directions that W has not: contrasts of
    laws sum to zero.
    """
    varied = resid - resid.mean(1, keepdim=True)
    basis, sizes, _ = torch.linalg.svd(varied.mT @ (varied @ coef), full_matrices=False)
    return basis * (sizes > SMALLEST_PART * sizes[:, :1])[:, None]


def random_basis(
    like: Float[Tensor, "seeds d_model numbers"], resid: Float[Tensor, "seeds tasks d_model"], purpose: str, index: int
) -> Float[Tensor, "seeds d_model numbers"]:
    """That of a probe with random weights, of the rank that `like` has, a basis."""
    drawn = probe_basis(normals(range(len(like)), purpose, index, *like.shape[1:]).to(like), resid)
    return drawn * like.any(1, keepdim=True)


def within(basis: Float[Tensor, "seeds d_model rank"]) -> Edit:
    """Swaps a subspace at the query, the last token."""

    def edit(own: Tensor, other: Tensor) -> Tensor:
        step = other[..., -1, :] - own[..., -1, :]
        return torch.cat([own[..., :-1, :], (own[..., -1, :] + step @ basis @ basis.mT)[..., None, :]], -2)

    return edit


def whole_query(own: Tensor, other: Tensor) -> Tensor:
    """Swaps everything at the query."""
    return torch.cat([own[..., :-1, :], other[..., -1:, :]], -2)


def whole_memory(own: Tensor, other: Tensor) -> Tensor:
    """Swaps everything at all tokens before the query."""
    return torch.cat([other[..., :-1, :], own[..., -1:, :]], -2)


@torch.no_grad()
def query_logits(policy: PolicyTransformer, history: Interaction) -> Float[Tensor, "seeds tasks actions"]:
    """At the last step."""
    return policy.read_out(policy(history))[..., -1, :]


@torch.no_grad()
def interchanged_logits(
    policy: PolicyTransformer,
    history: Interaction,
    other: Float[Tensor, "seeds tasks pos d_model"],
    depth: int,
    edit: Edit,
) -> Float[Tensor, "seeds tasks actions"]:
    """The last step's, where after `depth` layers the stream is edited with that of another context."""
    name = stream_hooks(policy)[depth]
    resid = run_with_hooks(policy, history, [(name, lambda own, hook: edit(own, other))])
    return policy.read_out(resid)[..., -1, :]


def way_gone(
    own: Float[Tensor, "seeds tasks actions"],
    edited: Float[Tensor, "*kinds seeds tasks actions"],
    other: Float[Tensor, "seeds tasks actions"],
) -> tuple[Float[Tensor, "*kinds seeds tasks"], Float[Tensor, "seeds tasks"]]:
    """Numerator and denominator of the share of the way that logits have gone, <edited - own, other - own> and
    |other - own|^2 of centred logits: sums over tasks give 0 where nothing moved, 1 where all arrived."""
    swing, gone = (centred(x) - centred(own) for x in (other, edited))
    return (gone * swing).sum(-1), swing.square().sum(-1)


def centred(logits: Float[Tensor, "*batch actions"]) -> Float[Tensor, "*batch actions"]:
    """A law does not change where all its logits rise together."""
    return logits - logits.mean(-1, keepdim=True)


def at_steps(
    stream: Float[Tensor, "depths seeds tasks pos d_model"], times: Sequence[int]
) -> Float[Tensor, "depths rows seeds d_model"]:
    """What `probes.linear` reads: a row per task and step, the seeds in the place of positions."""
    return stream[..., list(times), :].flatten(2, 3).transpose(1, 2)
