"""Ridge regressions of many layers at once, from streamed sums: the moments, the folds, the solutions, their scores.

Ridge regression needs its data only through sums of outer products. One pass collects them in float64, fold by fold.
Leaving folds out of the sum gives every training set of a nested cross-validation, and one eigendecomposition of each,
batched over layers, gives the weights for all targets and penalties.
"""

import math
from collections.abc import Collection, Iterator
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Float64, Int, Num
from torch import Tensor

BLOCK = 2**19  # float64 numbers worked on at a time, 4 MiB, which stay in the cache
FIRST = 256  # rows whose median is the origin of the sums
Maps = Float64[Tensor, "*lead columns alphas targets"]


def assign_folds(group_sizes: Int[Tensor, " groups"], n_splits: int) -> Int[Tensor, " groups"]:
    """Fold of each group: the largest group first, each to the fold with the fewest rows.

    The folds are those of scikit-learn's `GroupKFold(n_splits)`, but follow from the sizes alone, so that a stream can
    be split before it is read. Raises ValueError when there are fewer groups than folds, or when a group is empty.
    """
    sizes = group_sizes.tolist()
    if not 2 <= n_splits <= len(sizes):
        raise ValueError(
            f"cannot split n_groups={len(sizes)} into n_splits={n_splits} folds of whole groups; "
            f"use 2 <= n_splits <= number of groups, or collect more tasks."
        )
    if min(sizes) < 1:
        raise ValueError(f"group {sizes.index(min(sizes))} has {min(sizes)} rows; every group needs at least one.")
    folds, rows = np.empty(len(sizes), dtype=np.int64), np.zeros(n_splits)
    for group in np.argsort(sizes, kind="stable")[::-1]:
        folds[group] = rows.argmin()
        rows[folds[group]] += sizes[group]
    return torch.from_numpy(folds)


def align(activations: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Views `[*lead, rows, features]` and `[*lead, rows, targets]`, where lead is layers, or layers and positions.

    `activations [layers, rows, features]` or `[layers, rows, positions, features]`. `targets [rows, targets]` are the
    same for every layer and position; otherwise they have the activations' axes, of size 1 where layers or positions
    share a target. Raises ValueError for other shapes and for empty tensors.
    """
    if activations.ndim not in (3, 4) or not activations.numel():
        raise ValueError(
            f"activations have shape {list(activations.shape)}; expected a non-empty [layers, rows, features] or "
            f"[layers, rows, positions, features]. For a single layer, give activations[None]."
        )
    x = activations.movedim(1, -2)
    y = targets.movedim(1, -2) if targets.ndim == activations.ndim else targets
    fits = targets.ndim in (2, activations.ndim) and y.shape[-2] == x.shape[-2] and y.numel()
    if not fits or any(size not in (1, full) for size, full in zip(y.shape[:-2], x.shape[:-2], strict=False)):
        raise ValueError(
            f"cannot align {list(targets.shape)} with activations {list(activations.shape)}; expected [rows, targets] "
            f"or the activations' axes with size 1 where shared. For a single target, give targets[..., None]."
        )
    return x, y.expand(*x.shape[:-1], y.shape[-1])


class RidgeFitter:
    """Streams the moments of one ridge regression per layer (and position), fold by fold, and solves them all at once.

    A row is `z = [x - shift, y - shift, 1]`, of features + targets + 1 columns. All that is kept are the sums of `zᵀz`,
    `sums [folds, *lead, columns, columns]`. The shift is the first rows' median: close enough to the mean that large
    offsets do not cancel, and a value of the data, so that constant columns are exactly zero.

    A fitted probe is kept as the map `[*lead, columns, targets]` from `z` to its residual, `y - ŷ = z map`. So its
    squared errors over a fold add up to the diagonal of `mapᵀ sums[fold] map`.
    """

    n_features: int
    shift: Float64[Tensor, "*lead 1 columns"]
    sums: Float64[Tensor, "folds *lead columns columns"]

    def __init__(self, n_folds: int) -> None:
        self.n_folds = n_folds

    @torch.no_grad()
    def update(
        self, activations: Num[Tensor, "..."], targets: Num[Tensor, "..."], folds: Int[Tensor, "_"]
    ) -> "RidgeFitter":
        """Adds rows, shaped as in `align`, and the fold of each. Raises ValueError where shapes do not fit."""
        if not hasattr(self, "sums"):
            x, y = align(activations, targets)
            self.n_features, columns = x.shape[-1], x.shape[-1] + y.shape[-1] + 1
            self.shift = x.new_zeros(*x.shape[:-2], 1, columns, dtype=torch.float64)
            self.shift[..., : self.n_features] = x[..., :FIRST, :].median(-2, keepdim=True).values
            self.shift[..., self.n_features : -1] = y[..., :FIRST, :].median(-2, keepdim=True).values
            self.sums = self.shift.new_zeros(self.n_folds, *x.shape[:-2], columns, columns)
        for fold, _, z in self.blocks(activations, targets, folds):
            z = z.flatten(0, -3)
            self.sums[fold].flatten(0, -3).baddbmm_(z.mT, z)
        return self

    def blocks(self, activations: Tensor, targets: Tensor, folds: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yields (fold, rows, `z [*lead, rows, columns]`) in blocks of one fold each that fit into the cache."""
        x, y = align(activations, targets)
        *lead, n_rows, n_features = x.shape
        columns = n_features + y.shape[-1] + 1
        if n_features != self.n_features or self.shift.shape != (*lead, 1, columns):
            shapes = f"activations {list(activations.shape)} and targets {list(targets.shape)}"
            raise ValueError(f"{shapes} differ from the first batch in layers, positions, features or targets.")
        if folds.shape != (n_rows,):
            raise ValueError(f"groups have shape {list(folds.shape)}; expected one for each of the {n_rows} rows.")
        # With fewer rows a product would spend its time on writing the sums.
        size = max(256, BLOCK // (math.prod(lead) * columns))
        for fold in range(self.n_folds):
            for rows in (folds.to(x.device) == fold).nonzero().squeeze(1).split(size):
                z = self.shift.new_empty(*lead, len(rows), columns + -columns % 8)[..., :columns]  # whole cache lines
                z[..., :n_features], z[..., n_features:-1], z[..., -1] = x[..., rows, :], y[..., rows, :], 1
                yield fold, rows, z.sub_(self.shift)

    def check_finite(self) -> None:
        """Raises ValueError naming the layers where activations or targets are not finite, or overflow when squared."""
        squares = self.sums.sum(0).diagonal(dim1=-2, dim2=-1).tensor_split([self.n_features], -1)
        for name, part in zip(("activations", "targets"), squares, strict=True):
            if not part.isfinite().all():
                layers = (~part.isfinite()).flatten(1).any(1).nonzero().squeeze(1).tolist()
                raise ValueError(
                    f"{name} of layers {layers} hold NaN, infinity or numbers too large to square; "
                    f"leave out the tasks on which the network or the learner diverges."
                )

    def solve(self, alphas: Float64[Tensor, " alphas"], without: Collection[int] = ()) -> Maps:
        """Residual maps of `min |y - xw - b|² + alpha |w|²` for each alpha, trained on the folds not in `without`.

        With `xᵀx = Q diag(e) Qᵀ`, x and y about their training means, the weights are `Q diag(1 / (e + alpha)) Qᵀxᵀy`.
        At an infinite alpha they vanish, and the probe predicts the training mean.
        """
        p = self.n_features
        train = self.sums[[fold for fold in range(self.n_folds) if fold not in without]].sum(0)
        mean = train[..., :-1, -1] / train[..., -1:, -1]  # [*lead, features + targets]
        scatter = train[..., :-1, :-1] - mean[..., :, None] * train[..., -1:, :-1]
        eigenvalues, basis = torch.linalg.eigh(scatter[..., :p, :p])
        rotated = basis.mT @ scatter[..., :p, p:]  # [*lead, features, targets]
        shrunk = rotated[..., None, :] / (eigenvalues.clamp(min=0)[..., None] + alphas)[..., None]
        maps = train.new_zeros(*train.shape[:-1], *shrunk.shape[-2:])
        maps[..., :p, :, :] = -(basis @ shrunk.flatten(-2)).view_as(shrunk)
        maps[..., p:-1, :, :] = torch.eye(shrunk.shape[-1], dtype=train.dtype, device=train.device)[:, None, :]
        maps[..., -1, :, :] = -torch.einsum("...c,...cat->...at", mean, maps[..., :-1, :, :])
        return maps

    def score(self, maps: Maps, fold: int) -> Float64[Tensor, "*lead alphas targets"]:
        """R² about the fold's own mean, as scikit-learn's `r2_score`; constant targets score 0, or 1 if exact."""
        sums = self.sums[fold]
        errors = (maps * (sums @ maps.flatten(-2)).view_as(maps)).sum(-3).clamp(min=0)
        rows, sum_y = sums[..., -1:, -1:], sums[..., -1:, self.n_features : -1]
        sum_yy = sums.diagonal(dim1=-2, dim2=-1)[..., None, self.n_features : -1]
        total, rounding = sum_yy - sum_y.square() / rows, torch.finfo(sums.dtype).eps * rows * sum_yy
        return torch.where(total > rounding, 1 - errors / total, (errors <= rounding).double())

    def inner_scores(self, alphas: Float64[Tensor, " alphas"]) -> Float64[Tensor, "folds *lead alphas targets"]:
        """For each outer fold, the mean R² of a cross-validation among the other folds."""
        scores = {}
        for first, second in combinations(range(self.n_folds), 2):
            # Trained without both, one probe serves twice: either is the outer fold, and the other is scored.
            maps = self.solve(alphas, {first, second})
            scores[first, second], scores[second, first] = self.score(maps, second), self.score(maps, first)
        folds = range(self.n_folds)
        return torch.stack([torch.stack([scores[o, i] for i in folds if i != o]).mean(0) for o in folds])

    def coefficients(self, maps: Float64[Tensor, "*lead columns targets"]) -> tuple[Tensor, Tensor]:
        """Weights `[*lead, features, targets]` and intercept `[*lead, targets]` in the coordinates of the data."""
        p, shift = self.n_features, self.shift.squeeze(-2)
        weights = -maps[..., :p, :]
        return weights, shift[..., p:-1] - (shift[..., None, :p] @ weights).squeeze(-2) - maps[..., -1, :]
