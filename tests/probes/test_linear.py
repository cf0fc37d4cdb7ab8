"""The layerwise probe equals scikit-learn's cross-validated ridge, streams, respects groups, and says what is wrong."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.linear import ALPHAS, RidgeProbe, probe_batches, probe_layers, ratio_table
from probes.ridge import RidgeFitter, assign_folds


def some_data(n_layers=2, n_rows=300, n_features=6, n_targets=3, n_groups=20, noise=1.0, seed=0):
    """Activations [layers, rows, features], targets [rows, targets] linear in layer 0, unequal groups [rows]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    activations = normal(n_layers, n_rows, n_features)
    targets = activations[0] @ normal(n_features, n_targets) + noise * normal(n_rows, n_targets)
    groups = torch.cat([torch.arange(n_groups), torch.randint(n_groups, (n_rows - n_groups,), generator=generator)])
    return activations, targets, groups


def grid_search(x, y, groups, alphas=ALPHAS, n_splits=5):
    search = GridSearchCV(Ridge(), {"alpha": list(alphas)}, cv=GroupKFold(n_splits))
    search.fit(x.numpy(), y.numpy(), groups=groups.numpy())
    return search


# The reference: scikit-learn


@parametrize_with_checks([RidgeProbe(group_by="row")])
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@given(st.lists(st.integers(1, 9), min_size=5, max_size=30), st.integers(2, 5))
def test_folds_are_group_k_fold(sizes, n_splits):
    rows = np.repeat(np.arange(len(sizes)), sizes)
    folds = assign_folds(torch.tensor(sizes), n_splits).numpy()[rows]
    for fold, (_, held_out) in enumerate(GroupKFold(n_splits).split(rows, groups=rows)):
        assert_allclose(np.flatnonzero(folds == fold), held_out)


@pytest.mark.parametrize("noise", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("n_targets", [1, 4])
def test_estimator_equals_grid_search(noise, n_targets):
    (x, _), y, groups = some_data(noise=noise, n_targets=n_targets)
    y = y.squeeze(1)
    search, probe = grid_search(x + 3, y, groups), RidgeProbe().fit(x.numpy() + 3, y.numpy(), groups=groups.numpy())
    scores = np.stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(5)])
    assert_allclose(probe.cv_scores_, scores, atol=1e-8)
    assert probe.alpha_ == search.best_params_["alpha"]
    assert_allclose(probe.coef_, search.best_estimator_.coef_, atol=1e-8)
    assert_allclose(probe.intercept_, search.best_estimator_.intercept_, atol=1e-8)
    assert_allclose(probe.predict(x.numpy()), search.predict(x.numpy()), atol=1e-8)


def test_layers_equal_grid_search_target_by_target():
    activations, targets, groups = some_data(noise=10.0)
    result = probe_layers(activations, targets, groups)
    for layer, x in enumerate(activations):
        for target, y in enumerate(targets.T):
            search = grid_search(x, y, groups)
            scores = result.cv_scores[:, layer, :, target].mean(0)
            assert_allclose(scores, search.cv_results_["mean_test_score"], atol=1e-8)
            assert result.alpha[layer, target] == search.best_params_["alpha"]
            assert_allclose(result.coef[layer, :, target], search.best_estimator_.coef_, atol=1e-8)
            assert_allclose(result.intercept[layer, target], search.best_estimator_.intercept_, atol=1e-8)


def test_r2_is_nested_cross_validation():
    """Out-of-fold errors, task by task, are those of a grid search that never saw the fold."""
    (x, _), (y, *_), groups = (part.T if part.ndim == 2 else part for part in some_data(noise=10.0))
    residual, total = torch.zeros(20, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)
    result = probe_layers(x[None], y[:, None], groups)
    folds = assign_folds(groups.bincount(), 5)[groups]
    for fold in range(5):
        train, test = folds != fold, folds == fold
        # GroupKFold deals the remaining groups anew; the inner folds here are the remaining folds.
        inner = [(torch.where(folds[train] != f)[0], torch.where(folds[train] == f)[0]) for f in range(5) if f != fold]
        search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=[(a.numpy(), b.numpy()) for a, b in inner])
        search.fit(x[train].numpy(), y[train].numpy())
        errors = y[test] - torch.from_numpy(search.predict(x[test].numpy()))
        residual.index_add_(0, groups[test], errors.square())
        total.index_add_(0, groups[test], (y[test] - y[train].mean()).square())
    assert_allclose(result.residual[0, :, 0], residual, rtol=1e-8)
    assert_allclose(result.total[0, :, 0], total, rtol=1e-10)
    assert_allclose(result.r2[0, 0], 1 - residual.sum() / total.sum(), rtol=1e-8)


def test_more_features_than_rows():
    (x,), y, groups = some_data(n_layers=1, n_rows=40, n_features=60, n_groups=10)
    search, probe = grid_search(x, y, groups, [0.1, 10.0]), RidgeProbe([0.1, 10.0]).fit(x, y, groups=groups)
    assert_allclose(probe.coef_, search.best_estimator_.coef_, atol=1e-8)
    assert_allclose(probe.cv_scores_.mean(0), search.cv_results_["mean_test_score"], atol=1e-8)


# Controls of the instrument itself


def test_finds_a_linear_target_and_only_where_it_is():
    activations, targets, groups = some_data(noise=1e-3, n_rows=1000)
    r2 = probe_layers(activations, targets, groups).r2
    assert (r2[0] > 0.99999).all()
    assert (r2[1] < 0.02).all()


def test_a_target_known_only_by_task_is_not_found_by_splitting_tasks():
    """Activations that name the task predict its value on other rows of the task, and nothing on other tasks."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 20)
    x = rng.standard_normal((40, 50))[groups] + 0.1 * rng.standard_normal((800, 50))
    y = rng.standard_normal(40)[groups]
    by_row = RidgeProbe(group_by="row").fit(x, y)
    by_task = RidgeProbe().fit(x, y, groups=groups)
    assert by_row.cv_scores_.mean(0).max() > 0.9
    assert by_task.cv_scores_.mean(0).max() < 0.1
    nested = probe_layers(torch.tensor(x)[None], torch.tensor(y)[:, None], torch.tensor(groups))
    assert nested.r2.item() < 0.1


def test_predicting_the_training_mean_scores_zero():
    activations, targets, groups = some_data()
    assert_allclose(probe_layers(activations, targets, groups, alphas=[1e300]).r2, 0, atol=1e-10)


# Numerics


def batches_of(activations, targets, groups, size):
    parts = torch.arange(len(groups)).split(size)
    return [(activations[:, rows], targets[rows], groups[rows]) for rows in parts]


@pytest.mark.parametrize("size", [1, 37])
def test_streaming_equals_one_batch(size):
    activations, targets, groups = some_data()
    whole = probe_layers(activations, targets, groups)
    parts = probe_batches(batches_of(activations, targets, groups, size), groups.bincount())
    for field in ("coef", "intercept", "alpha", "cv_scores", "residual", "total"):
        assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-10, atol=1e-10)


def test_offsets_do_not_cancel():
    """Adding 1e6 to everything costs only the digits that the sum itself loses; plain sums would lose six more."""
    activations, targets, groups = some_data(noise=0.1)
    near = probe_layers(activations, targets, groups)
    far = probe_layers(activations + 1e6, targets - 1e6, groups)
    assert_allclose(far.coef, near.coef, atol=1e-8)
    assert_allclose(far.r2, near.r2, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_exact_about_its_own_values(dtype):
    activations, targets, groups = some_data()
    low = activations.to(dtype)
    assert_allclose(
        probe_layers(low, targets, groups).coef, probe_layers(low.double(), targets, groups).coef, atol=1e-10
    )


def test_constant_columns():
    """A constant feature gets no weight, and a constant target has no R²."""
    activations, targets, groups = some_data()
    activations[..., 0], targets[:, 0] = 0.1, 0.3
    result = probe_layers(activations, targets, groups)
    assert (result.coef[:, 0] == 0).all()
    assert result.r2[:, 0].isnan().all()
    assert result.table(["constant", "b", "c"])["low"].isna().tolist() == [True, False, False] * 2
    assert_allclose(result.intercept[:, 0], 0.3)
    assert result.r2[:, 1:].isfinite().all()


def test_scores_of_constant_targets_equal_scikit_learn():
    fitter = RidgeFitter(2).update(torch.randn(1, 20, 2), torch.ones(20, 1), torch.arange(20) % 2)
    alphas = torch.ones(1, dtype=torch.float64)
    assert fitter.score(fitter.solve(alphas, {0}), 0).item() == r2_score(np.ones(10), np.ones(10))
    fitter = RidgeFitter(2).update(torch.randn(1, 20, 2), torch.arange(20.0)[:, None] // 10, torch.arange(20) // 10)
    assert fitter.score(fitter.solve(alphas, {0}), 0).item() == r2_score(np.zeros(10), np.ones(10))


def test_targets_do_not_influence_one_another():
    activations, targets, groups = some_data(noise=5.0)
    alone = probe_layers(activations, targets[:, :1], groups)
    beside = probe_layers(activations, torch.cat([targets[:, :1], 100 * targets[:, 1:]], 1), groups)
    assert_allclose(beside.r2[:, :1], alone.r2, rtol=1e-10)


# Shapes


def test_positions_and_layers_are_probed_separately():
    activations = torch.stack([some_data(seed=seed)[0] for seed in range(4)], 2)  # [layers, rows, positions, features]
    _, targets, groups = some_data()
    result = probe_layers(activations, targets, groups)
    assert result.r2.shape == (2, 4, 3)
    assert result.coef.shape == (2, 4, 6, 3)
    assert result.residual.shape == (2, 4, 20, 3)
    one = probe_layers(activations[:, :, 2], targets, groups)
    assert_allclose(result.r2[:, 2], one.r2, rtol=1e-10)


def test_targets_of_their_own_for_layers_and_positions():
    activations = torch.stack([some_data(seed=seed)[0] for seed in range(4)], 2)
    _, shared, groups = some_data()
    steps = torch.tensor([1.0, -2.0], dtype=torch.float64).view(2, 1, 1, 1)
    by_layer = probe_layers(activations, steps * shared[None, :, None], groups)
    assert_allclose(by_layer.r2, probe_layers(activations, shared, groups).r2, rtol=1e-10)
    targets = torch.stack([some_data(seed=seed)[1] for seed in range(4)], 1)[None]  # [1, rows, positions, targets]
    by_position = probe_layers(activations, targets, groups)
    one = probe_layers(activations[:, :, 3], targets[0, :, 3], groups)
    assert_allclose(by_position.r2[:, 3], one.r2, rtol=1e-10)


def test_table_is_tidy():
    activations, targets, groups = some_data()
    result = probe_layers(activations[:, :, None], targets, groups)
    table = result.table(["a", "b", "c"])
    assert list(table) == ["layer", "position", "target", "metric", "value", "low", "high"]
    assert len(table) == 6
    assert table.query("layer == 1 and target == 'b'")["value"].item() == pytest.approx(result.r2[1, 0, 1].item())
    assert table["value"].between(table["low"], table["high"]).all()


# Intervals


def test_interval_is_the_percentile_bootstrap_over_groups():
    rng = np.random.default_rng(0)
    total = rng.exponential(size=(60, 1)) + 0.5
    gain = total * rng.uniform(0.2, 0.9, size=(60, 1))
    table = ratio_table(torch.tensor(gain)[None], torch.tensor(total)[None], ["a"], "r2", confidence_level=0.9)
    reference = scipy.stats.bootstrap(
        (gain[:, 0], total[:, 0]),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        method="percentile",
        confidence_level=0.9,
        n_resamples=20_000,
        rng=1,
    ).confidence_interval
    width = reference.high - reference.low
    assert table["low"].item() == pytest.approx(reference.low, abs=0.05 * width)
    assert table["high"].item() == pytest.approx(reference.high, abs=0.05 * width)


def test_intervals_are_over_tasks_not_rows():
    """Copying every row leaves the number of tasks, so the interval must not shrink."""
    activations, targets, groups = some_data(noise=5.0)
    activations = activations[:1]
    once = probe_layers(activations, targets, groups).table(["a", "b", "c"])
    copies = [activations.repeat(1, 10, 1), targets.repeat(10, 1), groups.repeat(10)]
    often = probe_layers(*copies).table(["a", "b", "c"])
    assert_allclose(often["high"] - often["low"], once["high"] - once["low"], rtol=0.1)


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, g: (x[0], y, g), r"activations\[None\]"),
        (lambda x, y, g: (x[:, :, :0], y, g), "non-empty"),
        (lambda x, y, g: (x[:, :0], y[:0], g[:0]), "n_groups=0"),
        (lambda x, y, g: (x, y[:, 0], g), r"targets\[\.\.\., None\]"),
        (lambda x, y, g: (x, y[:-1], g), "cannot align"),
        (lambda x, y, g: (x, y[None].repeat(3, 1, 1), g), "cannot align"),
        (lambda x, y, g: (x, y, g[:-1]), "one for each of the 300 rows"),
        (lambda x, y, g: (x, y, g % 4), "n_groups=4 into n_splits=5"),
        (lambda x, y, g: (x.index_fill(0, torch.tensor(1), torch.nan), y, g), r"activations of layers \[1\]"),
        (lambda x, y, g: (x, y.index_fill(0, torch.tensor(7), torch.inf), g), r"targets of layers \[0, 1\]"),
    ],
)
def test_layers_say_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        probe_layers(*change(*some_data()))


@pytest.mark.parametrize("alphas", [[], [0.0], [1.0, -1.0], [np.inf]])
def test_penalties_are_positive(alphas):
    with pytest.raises(ValueError, match="positive, finite"):
        probe_layers(*some_data(), alphas=alphas)


def test_batches_say_what_is_wrong():
    activations, targets, groups = some_data()
    sizes = groups.bincount()
    batches = batches_of(activations, targets, groups, 100)
    with pytest.raises(ValueError, match="read only once"):
        probe_batches(iter(batches), sizes)
    with pytest.raises(ValueError, match="at least 3 folds"):
        probe_batches(batches, sizes, n_splits=2)
    with pytest.raises(ValueError, match="in group_sizes"):
        probe_batches(batches[:-1], sizes)
    with pytest.raises(ValueError, match="expected 0 to 18"):
        probe_batches(batches, sizes[:-1])
    with pytest.raises(ValueError, match="every group needs at least one"):
        probe_batches(batches, torch.cat([sizes, torch.zeros(1, dtype=torch.long)]))
    with pytest.raises(ValueError, match="differ from the first batch"):
        probe_batches([batches[0], (activations[:1], targets, groups)], sizes)
    with pytest.raises(ValueError, match="2 names for 3 targets"):
        probe_layers(activations, targets, groups).table(["a", "b"])


def test_estimator_says_what_is_wrong():
    (x, _), y, groups = some_data()
    with pytest.raises(ValueError, match=r'RidgeProbe\(group_by="row"\)'):
        RidgeProbe().fit(x, y)
    with pytest.raises(ValueError, match="would ignore the groups"):
        RidgeProbe(group_by="row").fit(x, y, groups=groups)
    with pytest.raises(ValueError, match="group_by='task'"):
        RidgeProbe(group_by="task").fit(x, y, groups=groups)
