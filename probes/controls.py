"""Controls of the layerwise probe: what would the same code find where there is nothing to find, or nothing new?

another network   does training matter (an untrained network), or the network at all (its input)?
shuffled targets  each task gets the targets of another: what do positions alone explain?
random targets    Gaussians of the target's covariance: what does a probe of this size find by chance?
increment         R² over a base set: what do activations say that simpler quantities do not?
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import torch
from jaxtyping import Float64, Int, Num
from torch import Tensor

from probes.linear import ALPHAS, probe_layers, ratio_table
from probes.ridge import align


def shuffle_targets(
    targets: Num[Tensor, "..."], groups: Int[Tensor, "_"], generator: torch.Generator
) -> Num[Tensor, "..."]:
    """Gives each task the targets of another, row by row in the given order, so that the structure within tasks stays.

    `targets [rows, targets]` or `[layers, rows, ..., targets]`. The donors form a random cycle through all tasks, so no
    task keeps its own. A donor with fewer rows starts over, one with more gives its first. Raises ValueError for a
    single task.
    """
    _, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise ValueError("targets of a single task cannot be shuffled across tasks.")
    order = index.argsort(stable=True)  # the rows of the first task, then of the second, ...
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - starts[index[order]]
    cycle = torch.randperm(len(sizes), generator=generator)
    donor = torch.empty_like(cycle)
    donor[cycle] = cycle.roll(1)
    donor = donor[index]
    source = order[starts[donor] + rank % sizes[donor]]
    return targets.index_select(0 if targets.ndim == 2 else 1, source)


def random_targets(
    targets: Num[Tensor, "..."], groups: Int[Tensor, "_"], generator: torch.Generator
) -> Float64[Tensor, "..."]:
    """Gaussian targets with exactly the given ones' mean, covariance between tasks and covariance within tasks.

    Both covariances matter: a target constant over each task has only as many independent values as there are tasks,
    one that varies within tasks as many as rows, and a probe is fooled more easily by the former. Shapes as in
    `shuffle_targets`. Raises ValueError with too few tasks or rows to carry the covariance.
    """
    axis = 0 if targets.ndim == 2 else 1
    y = targets.double().movedim(axis, -2)  # [..., rows, targets]
    _, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    n_rows, n_groups, n_targets = len(index), len(sizes), y.shape[-1]
    if n_groups <= n_targets or 0 < n_rows - n_groups < n_targets:
        raise ValueError(
            f"{n_groups} tasks with {n_rows} rows cannot carry the covariance of {n_targets} targets; "
            f"use more tasks than targets, or fewer targets."
        )
    root = sizes.double().sqrt()[:, None]

    def split(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, deviations of the task means (scaled by the root of the task's size), deviations within tasks."""
        sums = values.new_zeros(*values.shape[:-2], n_groups, n_targets).index_add_(-2, index, values)
        mean, means = values.mean(-2, keepdim=True), sums / root.square()
        return mean, root * (means - mean), values - means[..., index, :]

    mean, *scatters = split(y)
    _, *noises = split(torch.randn(y.shape, generator=generator, dtype=y.dtype))
    # Orthonormal columns times the R of `like = QR` have the scatter RᵀR of `like`.
    pairs = zip(noises, scatters, strict=True)
    between, within = (torch.linalg.qr(noise).Q @ torch.linalg.qr(like).R for noise, like in pairs)
    return (mean + (between / root)[..., index, :] + within).movedim(-2, axis)


def probe_with_controls(
    activations: Num[Tensor, "..."],
    targets: Num[Tensor, "..."],
    groups: Int[Tensor, "_"],
    names: Sequence[str],
    *,
    others: Mapping[str, Tensor] | None = None,
    alphas: Iterable[float] = ALPHAS,
    n_splits: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Tidy rows (control, layer, position, target, metric, value, low, high) of R² with and without controls.

    `control` is "none" for the probe itself, "shuffled" and "random" for the same activations with controlled targets,
    and a key of `others` for other activations of the same rows with the true targets, such as
    {"untrained": ..., "input": ...}. `names` are the targets'; the rest is as in `probe_layers`, which does the work.
    """
    tables, generator = {}, torch.Generator().manual_seed(seed)
    kinds = {
        "none": targets,
        "shuffled": shuffle_targets(targets, groups, generator),
        "random": random_targets(targets, groups, generator),
    }
    # Targets do not influence one another, so one probe serves all three kinds.
    probe = probe_layers(activations, torch.cat(list(kinds.values()), -1), groups, alphas=alphas, n_splits=n_splits)
    sums = zip(kinds, probe.residual.chunk(3, -1), probe.total.chunk(3, -1), strict=True)
    for control, residual, total in sums:
        tables[control] = ratio_table(total - residual, total, names, "r2", seed=seed)
    for control, other in (others or {}).items():
        tables[control] = probe_layers(other, targets, groups, alphas=alphas, n_splits=n_splits).table(names, seed=seed)
    return pd.concat(tables, names=["control", None]).reset_index("control").reset_index(drop=True)


def r2_increment(
    activations: Num[Tensor, "..."],
    base: Mapping[str, Tensor],
    targets: Num[Tensor, "..."],
    groups: Int[Tensor, "_"],
    names: Sequence[str],
    *,
    alphas: Iterable[float] = ALPHAS,
    n_splits: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Tidy rows of R² of the named base features ("r2"), and of what activations add to it ("r2_increment").

    `base` maps names to features `[rows, features]`, or shaped as targets are in `align`; `control` is the names joined
    by "+". The increment is `(residual of base - residual of base and activations) / total`, its interval paired over
    tasks. Both sets share one penalty, so bring them to like scales: small base features would be shrunk first.
    """
    _, features = align(activations, torch.cat(list(base.values()), -1))
    features = features.movedim(-2, 1)
    alone = probe_layers(features, targets, groups, alphas=alphas, n_splits=n_splits)
    joint = probe_layers(torch.cat([features, activations], -1), targets, groups, alphas=alphas, n_splits=n_splits)
    gain = ratio_table(alone.residual - joint.residual, alone.total, names, "r2_increment", seed=seed)
    table = pd.concat([alone.table(names, seed=seed), gain], ignore_index=True)
    table.insert(0, "control", "+".join(base))
    return table
