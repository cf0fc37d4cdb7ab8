"""Pool or ridge: what linear attention can at best be, and thresholds that are what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import analyses.parallel
import analyses.pool_bayes_or_ridge as module
from algorithms.least_squares import PoolBayes, Ridge, SmoothedPoolBayes
from analyses.configs import ANALYSES, PoolBayesOrRidge
from analyses.pool_bayes_or_ridge import (
    ANALYSIS,
    SMOOTHINGS,
    PoolRidge,
    answer,
    fit_smoothing,
    relative_error,
    run,
    scale_labels,
    smallest_pool,
    summarise,
    thresholds,
    typical,
)
from analyses.tables import select, tidy
from figures import pool_bayes_or_ridge
from models.config import LinearTransformerConfig
from models.linear import LinearTransformer
from models.regression_objective import trainable
from probes.behaviour import predict
from tasks.errors import ConfigError
from tasks.layout import Prompt, labelled_layout
from tasks.regression import RegressionFamily
from tasks.streams import normals

LAYOUT = labelled_layout(3)
FAMILY = RegressionFamily(3, noise=0.5, n_tasks=4, n_queries=5)
POOL = FAMILY.pool([0, 1])
PROMPT = FAMILY.pool_prompt([0, 1], "test", 0, 30, 6, LAYOUT)


def network(family: str) -> LinearTransformer:
    """Two random networks, three layers deep, in which only the family's entries differ from gradient descent's."""
    shape = (2, 2, 3, 1, 4, 4)
    P, Q = (0.3 * normals([0], "test/weights", 0, *shape).double()[0]).unbind(0)
    masks = trainable(family, LAYOUT)
    fixed = torch.zeros(4, 4, dtype=torch.float64)
    fixed[-1, -1] = 1.0
    config = LinearTransformerConfig(3, False, 3, tokens="labelled")
    return LinearTransformer(config, torch.where(masks["P"], P, fixed), Q * masks["Q"])


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    tiny = {"d_features": 2, "context_length": 4, "steps": 2, "prompts": 20}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FITTING_TASKS", 10)
        patch.setattr(module, "HELD_OUT_TASKS", 12)
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(replace(ANALYSES[ANALYSIS].preset("smoke"), **tiny, out=tmp_path_factory.mktemp("runs")))


class TestPoolRidge:
    def test_is_the_best_of_all_predictors_linear_in_the_labels(self) -> None:
        """E[w y^T] E[y y^T]^-1 y with w uniform over the pool: R X^T (X R X^T + noise^2 I)^-1 y."""
        X, y = PROMPT.context[..., :3], PROMPT.context[..., 3:]
        R = (POOL.mT @ POOL / 4)[:, None]
        best = R @ X.mT @ torch.linalg.inv(X @ R @ X.mT + 0.25 * torch.eye(6)) @ y
        torch.testing.assert_close(PoolRidge(POOL, 0.5)(PROMPT).weights, torch.stack([0 * best, best])[..., 0])
        expected = PROMPT.query_tokens[..., :3] @ best
        torch.testing.assert_close(PoolRidge(POOL, 0.5).predict(PROMPT), expected, atol=1e-10, rtol=0)
        assert (PoolRidge(POOL, 0.6).predict(PROMPT) - expected).abs().max() > 1e-3

    def test_is_ridge_where_the_pool_has_the_second_moment_of_the_prior(self) -> None:
        white = (3**0.5 * torch.eye(3, dtype=torch.float64)).expand(2, 3, 3)
        ridge = Ridge(0.25 / 6).predict(PROMPT)
        torch.testing.assert_close(PoolRidge(white, 0.5).predict(PROMPT), ridge, atol=1e-10, rtol=0)
        assert (PoolRidge(POOL, 0.5).predict(PROMPT) - ridge).abs().max() > 0.01

    def test_beats_ridge_on_its_pool_and_is_beaten_by_bayes(self) -> None:
        many = FAMILY.pool_prompt([0, 1], "test", 1, 4000, 6, LAYOUT)
        bayes, linear, ridge = (
            relative_error(answer(rival, many), many)
            for rival in (PoolBayes(POOL, 0.5), PoolRidge(POOL, 0.5), Ridge(0.25 / 6))
        )
        assert (bayes < linear).all()
        assert (linear < ridge).all()


class TestLabelScaling:
    def response(self, predictor: Tensor, scaled: Tensor) -> Tensor:
        return typical(predictor, scaled / 0.5, PROMPT)

    @pytest.mark.parametrize("family", ["sparse", "full"])
    def test_networks_whose_scores_read_covariates_alone_are_linear_in_the_labels(self, family: str) -> None:
        model = network(family)
        first, second = (scale_labels(PROMPT, factor) for factor in (2.0, -3.0))
        expected = predict(model, first) + predict(model, second)
        torch.testing.assert_close(predict(model, scale_labels(PROMPT, -1.0)), expected, atol=1e-10, rtol=0)
        left = self.response(predict(model, PROMPT), predict(model, scale_labels(PROMPT, 0.5)))
        assert (left < 1e-20).all()

    def test_networks_that_read_labels_and_bayes_are_not(self) -> None:
        model, bayes, ridge = network("free"), PoolBayes(POOL, 0.5), PoolRidge(POOL, 0.5)
        scaled = scale_labels(PROMPT, 0.5)
        assert (self.response(predict(model, PROMPT), predict(model, scaled)) > 1e-3).all()
        assert (self.response(bayes.predict(PROMPT), bayes.predict(scaled)) > 1e-3).all()
        assert (self.response(ridge.predict(PROMPT), ridge.predict(scaled)) < 1e-20).all()

    def test_only_labels_change(self) -> None:
        scaled = scale_labels(PROMPT, 2.0)
        assert scaled.tokens[..., :3].equal(PROMPT.tokens[..., :3])
        assert scaled.tokens[..., 3].equal(2 * PROMPT.tokens[..., 3])


@dataclass(frozen=True)
class AsNetwork:
    """A learner in the place of a network."""

    learner: SmoothedPoolBayes

    def predict(self, prompt: Prompt) -> Tensor:
        return self.learner.predict(prompt)


def test_the_smoothing_of_each_seed_is_found() -> None:
    planted = torch.tensor([[SMOOTHINGS[0]], [SMOOTHINGS[6]]]).double()
    found = fit_smoothing(AsNetwork(SmoothedPoolBayes(POOL, 0.5, planted)), POOL, 0.5, [PROMPT])
    assert torch.as_tensor(found.smoothing).equal(planted)


def test_batches_do_not_change_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answer(PoolBayes(POOL, 0.5), PROMPT)
    monkeypatch.setattr(module, "LARGEST_BATCH", 1)
    torch.testing.assert_close(answer(PoolBayes(POOL, 0.5), PROMPT), whole, atol=1e-12, rtol=0)


def test_errors_are_relative_and_leave_diverged_tasks_out() -> None:
    values = PROMPT.answers.clone()
    torch.testing.assert_close(relative_error(0 * values, PROMPT), torch.ones(2).double())
    torch.testing.assert_close(relative_error(1.1 * values, PROMPT), torch.full((2,), 0.01).double())
    values[:, 0] = 1e9
    torch.testing.assert_close(relative_error(values, PROMPT), torch.zeros(2).double())


def test_a_threshold_is_the_pool_from_which_on_all_hold() -> None:
    pools = np.array([1.0, 4.0, 16.0, np.inf])
    holds = np.array([[True, False, True, True], [False, False, False, True], [True, True, True, True]])
    assert smallest_pool(holds, pools).tolist() == [16, np.inf, 1]
    assert smallest_pool(~holds[:1], pools).tolist() == [np.inf]


def test_thresholds_compare_medians_over_seeds() -> None:
    pools = [1, 4, 16, None]
    measures = {  # seeds x pools
        ("disagreement", "ridge"): [[0.9, 0.2, 0.1, 0.0], [0.8, 0.3, 0.1, 0.0], [0.9, 0.9, 0.1, 0.0]],
        ("disagreement", "pool-bayes"): [[0.1, 0.4, 0.5, np.nan]] * 3,
        ("error", "subject"): [[1.0, 0.5, 0.21, 0.2], [1.0, 0.4, 0.215, 0.2], [1.0, 0.4, 0.5, 0.2]],
    }
    rows = []
    for (metric, learner), values in measures.items():
        table = tidy(values, {"seed": [0, 1, 2], "pool": pools}, metric=metric, learner=learner, target="new")
        rows.append(table.dropna(subset="value").assign(subject="full"))
    found = thresholds(pd.concat(rows).astype({"pool": "Int64"}))
    assert select(found, metric="nearer-to-ridge")["value"].tolist() == [4]
    assert select(found, metric="generalises")["value"].tolist() == [16]
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert found["n_seeds"].tolist() == [3, 3]


def test_the_tables_hold_every_family_and_pool(tables: Mapping[str, pd.DataFrame]) -> None:
    seeds = tables["seeds"]
    assert set(seeds["subject"]) == {"full", "free"}
    assert set(seeds["pool"].astype(object).fillna("unlimited")) == {4, "unlimited"}
    linear = select(seeds, metric="label-scaling", subject="full", learner="subject")
    assert (linear["value"] < 1e-10).all()
    by_heart = select(seeds, metric="disagreement", learner="pool-bayes")
    assert set(by_heart["pool"]) == {4}
    assert set(by_heart["target"]) == {"new", "pool"}
    assert np.isfinite(seeds["value"]).all()


def test_the_figure_and_the_summary_need_only_the_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    text = summarise(tables)
    assert "unlimited" in text
    assert "nearer-to-ridge" in text
    assert len(pool_bayes_or_ridge.draw(tables).get_axes()) == 10


def test_labels_without_noise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for without it every rival is exact"):
        run(PoolBayesOrRidge(noise=0.0, out=tmp_path))
