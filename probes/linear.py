"""The layerwise ridge probe: is a quantity linearly decodable from a layer, on tasks the probe has not seen?

One pass over the data gives every probe of a nested cross-validation (`probes/ridge.py`). A second one collects their
out-of-fold squared errors task by task, from which R² gets its interval over tasks.

    probe_layers   activations in memory              RidgeProbe   one layer, as a scikit-learn estimator
    probe_batches  activations that come in batches
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float64, Int, Num
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from probes.ridge import RidgeFitter, assign_folds

ALPHAS = tuple(10.0**power for power in range(-6, 7))
RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a layerwise probe found; lead is layers, or layers and positions.

    `coef`, `intercept` and `alpha` are of the probe refitted on all rows; `cv_scores` is the R² on each fold that chose
    alpha. `residual` and `total` hold each group's out-of-fold squared errors, of the nested probe and of predicting
    the training mean: R², its intervals and its differences follow from these two.
    """

    coef: Float64[Tensor, "*lead features targets"]
    intercept: Float64[Tensor, "*lead targets"]
    alpha: Float64[Tensor, "*lead targets"]
    cv_scores: Float64[Tensor, "folds *lead alphas targets"]
    residual: Float64[Tensor, "*lead groups targets"]
    total: Float64[Tensor, "*lead groups targets"]

    @property
    def r2(self) -> Float64[Tensor, "*lead targets"]:
        """`1 - sum of residual / sum of total` over all groups; NaN where a target is constant.

        Total is about the training folds' mean and sums are pooled over folds, unlike in `cv_scores`: so predicting
        that mean scores exactly 0, and R² is a ratio of sums over tasks, which can be resampled.
        """
        return 1 - self.residual.sum(-2) / self.total.sum(-2)

    def table(self, names: Sequence[str], *, confidence_level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Tidy rows (layer, position, target, metric, value, low, high) of R²; `names` are the targets'."""
        gain = self.total - self.residual
        return ratio_table(gain, self.total, names, "r2", confidence_level=confidence_level, seed=seed)


def ratio_table(
    numerator: Float64[Tensor, "*lead groups targets"],
    denominator: Float64[Tensor, "*lead groups targets"],
    names: Sequence[str],
    metric: str,
    *,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Tidy rows of `sum of numerator / sum of denominator`, with percentile bootstrap intervals over groups.

    A resample is a multinomial count of groups, the same for all layers, positions and targets: one matrix product does
    them all, and pairs stay pairs. Probes are not refitted. Raises ValueError unless each target has a name.
    """
    n_groups, n_targets = numerator.shape[-2:]
    if len(names) != n_targets:
        raise ValueError(f"got {len(names)} names for {n_targets} targets: {list(names)}.")
    counts = np.random.default_rng(seed).multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=RESAMPLES)
    weights = torch.from_numpy(np.vstack([np.ones(n_groups), counts]))
    ratios = ((weights @ numerator) / (weights @ denominator)).numpy()  # [*lead, 1 + RESAMPLES, targets]
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(ratios[..., 1:, :], [tail, 1 - tail], axis=-2)
    lead = numerator.shape[:-2]
    columns = ["layer", "position", "target"] if len(lead) == 2 else ["layer", "target"]
    rows = pd.MultiIndex.from_product([*map(range, lead), names], names=columns).to_frame(index=False)
    return rows.assign(metric=metric, value=ratios[..., 0, :].ravel(), low=low.ravel(), high=high.ravel())


def probe_layers(
    activations: Num[Tensor, "..."],
    targets: Num[Tensor, "..."],
    groups: Int[Tensor, "_"],
    *,
    alphas: Iterable[float] = ALPHAS,
    n_splits: int = 5,
) -> ProbeResult:
    """Probes every layer (and position) for every target; `groups [rows]` are the task ids, which folds never split.

    Shapes are those of `align`. Each layer, position and target has its own penalty, so its answer does not depend on
    what else is probed. Errors are those of `probe_batches`.
    """
    _, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    return probe_batches([(activations, targets, index)], sizes, alphas=alphas, n_splits=n_splits)


@torch.no_grad()
def probe_batches(
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    group_sizes: Int[Tensor, " groups"],
    *,
    alphas: Iterable[float] = ALPHAS,
    n_splits: int = 5,
) -> ProbeResult:
    """`probe_layers` over batches (activations, targets, groups), in memory that does not grow with their number.

    `batches` is read twice: for the moments, then for the errors. Groups are numbered from 0, and `group_sizes` counts
    their rows in all batches. The cross-validation is nested: errors on a fold come from a probe whose penalty was
    chosen without it. Raises ValueError for shapes that do not fit, NaN or infinity, too few groups, other group sizes.
    """
    if isinstance(batches, Iterator):
        raise ValueError("batches is an iterator, which can be read only once; give a list or an object with __iter__.")
    if n_splits < 3:
        raise ValueError(f"n_splits={n_splits}, but a nested choice of penalty needs at least 3 folds.")
    penalties = _check_alphas(alphas)
    fold_of, seen = assign_folds(group_sizes, n_splits), torch.zeros_like(group_sizes)
    fitter = RidgeFitter(n_splits)
    for activations, targets, groups in batches:
        groups = groups.cpu()
        if groups.numel() and not 0 <= groups.min() <= groups.max() < len(group_sizes):
            raise ValueError(f"groups run from {groups.min()} to {groups.max()}; expected 0 to {len(group_sizes) - 1}.")
        fitter.update(activations, targets, fold_of[groups])
        seen += groups.bincount(minlength=len(group_sizes))
    if (seen != group_sizes).any():
        group = int((seen != group_sizes).nonzero()[0])
        raise ValueError(f"group {group} has {seen[group]} rows in the batches, {group_sizes[group]} in group_sizes.")
    fitter.check_finite()

    penalties = penalties.to(fitter.sums.device)
    mean_last = torch.cat([penalties, penalties.new_tensor([math.inf])])
    held_out = torch.stack([fitter.solve(mean_last, {fold}) for fold in range(n_splits)])
    cv_scores = torch.stack([fitter.score(held_out[fold][..., :-1, :], fold) for fold in range(n_splits)])
    best, nested = cv_scores.mean(0).argmax(-2), fitter.inner_scores(penalties).argmax(-2)
    coef, intercept = fitter.coefficients(_pick(fitter.solve(penalties), best))

    maps = torch.cat([_pick(held_out, nested), held_out[..., -1, :]], -1)  # [folds, *lead, columns, 2 targets]
    squares = maps.new_zeros(*maps.shape[1:-2], len(group_sizes), maps.shape[-1])
    for activations, targets, groups in batches:
        for fold, rows, z in fitter.blocks(activations, targets, fold_of[groups.cpu()]):
            squares.index_add_(-2, groups.to(rows.device)[rows], (z @ maps[fold]).square_())
    residual, total = squares.chunk(2, -1)
    found = (coef, intercept, penalties[best], cv_scores, residual, total)
    return ProbeResult(*(tensor.cpu() for tensor in found))


def _pick(maps: Tensor, index: Tensor) -> Tensor:
    """Residual maps `[..., columns, targets]` at the penalties `index [..., targets]`."""
    return torch.take_along_dim(maps, index[..., None, None, :], -2).squeeze(-2)


def _check_alphas(alphas: Iterable[float]) -> Float64[Tensor, " alphas"]:
    """The penalties as a tensor. Raises ValueError unless they are positive and finite."""
    penalties = torch.tensor([float(alpha) for alpha in alphas], dtype=torch.float64)
    if not len(penalties) or not (penalties.isfinite() & (penalties > 0)).all():
        raise ValueError(f"alphas={penalties.tolist()}; expected one or more positive, finite penalties.")
    return penalties


class RidgeProbe(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression whose penalty is chosen by cross-validation over whole groups: one layer of `probe_layers`.

    Equals `GridSearchCV(Ridge(), {"alpha": alphas}, cv=GroupKFold(n_splits))` with one eigendecomposition per fold.
    `fit` raises ValueError without `groups`: rows of one task are not independent, and a probe tested on a task that it
    was trained on may only recognise the task. Where rows are independent, say so with `group_by="row"`.

    Fitted: `coef_ [targets, features]`, `intercept_ [targets]` (1-D y: `[features]` and a number), `alpha_`, and
    `cv_scores_ [n_splits, alphas]`, the R² averaged over targets.
    """

    def __init__(self, alphas=ALPHAS, *, group_by="groups", n_splits=5):
        self.alphas = alphas
        self.group_by = group_by
        self.n_splits = n_splits

    def fit(self, X, y, groups=None) -> "RidgeProbe":
        """Fits `X [rows, features]` to `y [rows]` or `[rows, targets]`; `groups [rows]` are task ids."""
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=self.n_splits
        )
        if self.group_by not in ("groups", "row"):
            raise ValueError(f'group_by={self.group_by!r}; expected "groups" or "row".')
        if self.group_by == "groups" and groups is None:
            raise ValueError('give fit the task ids as groups, or use RidgeProbe(group_by="row") for independent rows.')
        if self.group_by == "row" and groups is not None:
            raise ValueError('group_by="row" would ignore the groups given; use group_by="groups".')
        alphas = _check_alphas(self.alphas)
        groups = np.arange(len(X)) if groups is None else np.asarray(groups)
        _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        folds = assign_folds(torch.from_numpy(sizes), self.n_splits)[torch.from_numpy(index)]
        Y = np.asarray(y, dtype=np.float64).reshape(len(X), -1)
        fitter = RidgeFitter(self.n_splits).update(torch.tensor(X)[None], torch.tensor(Y), folds)
        scores = torch.stack([fitter.score(fitter.solve(alphas, {fold}), fold) for fold in range(self.n_splits)])
        scores = scores.mean(-1).squeeze(1)  # [folds, alphas]
        best = scores.mean(0).argmax()
        weights, intercept = fitter.coefficients(fitter.solve(alphas[best, None]).squeeze(-2))
        self.coef_, self.intercept_ = weights[0].T.numpy(), intercept[0].numpy()
        if np.ndim(y) == 1:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])
        self.alpha_, self.cv_scores_ = float(alphas[best]), scores.numpy()
        return self

    def predict(self, X) -> np.ndarray:
        """Predictions `[rows]` or `[rows, targets]`."""
        check_is_fitted(self)
        return validate_data(self, X, dtype=np.float64, reset=False) @ self.coef_.T + self.intercept_
