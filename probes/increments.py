"""What activations say of a quantity beyond simpler ones, beside an untrained network and targets of other tasks.

A quantity is one or several numbers (a law, a row of a table): their squared errors are added up, so that it has one
R² and one increment. See `probes.controls` for the controls of single targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.controls import random_targets, shuffle_targets
from probes.linear import probe_layers, ratio_table


@dataclass(frozen=True)
class Increments:
    """rows: tidy, see `increments`; coef: by quantity, how the joint probe reads activations."""

    rows: pd.DataFrame
    coef: dict[str, Float[Tensor, "depths seeds d_model numbers"]]


def increments(
    activations: Float[Tensor, "depths rows seeds d_model"],
    untrained: Float[Tensor, "depths rows seeds d_model"],
    base: Float[Tensor, "rows features"],
    targets: Mapping[str, Float[Tensor, "rows _"]],
    groups: Int[Tensor, " rows"],
    *,
    confidence_level: float = 0.95,
) -> Increments:
    """Tidy rows (layer, position, target, metric, value, low, high), position the seed's place, of the shares of every
    quantity's variance on held-out tasks that

        base              the base explains alone
        increment         activations add to it
        untrained         those of an untrained network add to it
        beyond untrained  the difference of the last two, paired by task
        shuffled, random  activations add where targets are those of other tasks, or Gaussians of the same spectrum:
                          what such a probe finds where there is nothing; what is no more than that counts as nothing
    """
    names, sizes = list(targets), [target.shape[-1] for target in targets.values()]
    true = torch.cat(list(targets.values()), -1).double()
    generator = torch.Generator().manual_seed(0)
    controls = [shuffle_targets(true, groups, generator), random_targets(true, groups, generator)]
    kinds = torch.cat([true, *controls], -1)  # targets do not influence one another: one probe serves all
    features = base[None, :, None].to(activations)
    own, other = (torch.cat([features.expand(*x.shape[:-1], -1), x], -1) for x in (activations, untrained))
    alone, joint = (probe_layers(x, kinds, groups) for x in (features, own))
    untaught = probe_layers(other, true, groups)

    def pooled(errors: Tensor, kind: int = 0) -> Tensor:
        part = errors.narrow(-1, kind * sum(sizes), sum(sizes))
        return torch.stack([each.sum(-1) for each in part.split(sizes, -1)], -1)

    def added(kind: int) -> Tensor:
        return pooled(alone.residual, kind) - pooled(joint.residual, kind)

    taught, floor = added(0), pooled(alone.residual) - pooled(untaught.residual)
    gains = {
        "base": (pooled(alone.total) - pooled(alone.residual), 0),
        "increment": (taught, 0),
        "untrained": (floor, 0),
        "beyond untrained": (taught - floor, 0),
        "shuffled": (added(1), 1),
        "random": (added(2), 2),
    }
    tables = [
        ratio_table(
            gain.expand_as(taught),
            pooled(alone.total, kind).expand_as(taught),
            names,
            metric,
            confidence_level=confidence_level,
        )
        for metric, (gain, kind) in gains.items()
    ]
    read = joint.coef[..., base.shape[-1] :, : sum(sizes)].split(sizes, -1)
    return Increments(pd.concat(tables, ignore_index=True), dict(zip(names, read, strict=True)))
