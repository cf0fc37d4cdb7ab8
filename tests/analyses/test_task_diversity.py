"""Task diversity: the predictor that knows its tasks by heart is Bayes', and thresholds are what they say."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import analyses.parallel
import analyses.task_diversity
from analyses.configs import ANALYSES, TaskDiversity
from analyses.tables import select, tidy
from analyses.task_diversity import PoolPredictor, half_way, nearest, run, summarise, thresholds
from figures import task_diversity
from models.config import ConfigError
from probes.lens import least_squares_weights
from tasks.layout import Prompt, transition_layout
from tasks.markov_reward import MarkovRewardProcess, TaskFamily, evaluation_prompt
from tasks.streams import uniforms

LAYOUT = transition_layout(3, discount=0.9)


def pool_of(size: int, fixed: tuple[str, ...] = ()) -> MarkovRewardProcess:
    return TaskFamily("random", n_states=5, d_features=3, fixed=fixed).sample([0, 1], "pool", 0, size)


def contexts(process: MarkovRewardProcess, n: int = 12) -> Prompt:
    draws = uniforms([0, 1], "test/rollout", 0, process.reward.shape[1], n + 1)
    return evaluation_prompt(process, draws, LAYOUT).to(torch.float64)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    small = {"d_features": 2, "n_states": 4, "context_length": 6, "train_tasks": 10, "pools": (2,)}
    out = {"components": ("kernel", "reward"), "out": tmp_path_factory.mktemp("runs")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.task_diversity, "FITTING_TASKS", 16)
        patch.setattr(analyses.task_diversity, "HELD_OUT_TASKS", 16)
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(replace(ANALYSES["task-diversity"].preset("smoke"), **small, **out))


def test_a_task_of_the_pool_is_recognised_and_valued_as_well_as_a_linear_predictor_can() -> None:
    pool = pool_of(8)
    prompt = contexts(pool)
    predictor = PoolPredictor.of(pool, LAYOUT)
    posterior = predictor.log_likelihood(prompt).softmax(-1)
    torch.testing.assert_close(posterior, torch.eye(8, dtype=torch.float64).expand(2, -1, -1), atol=1e-10, rtol=0)
    best = least_squares_weights(prompt.answers, prompt)
    expected = prompt.layout.read(prompt.query_tokens, "features") @ best[..., None]
    torch.testing.assert_close(predictor.predict(prompt), expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(predictor(prompt).predictions[-1], expected, atol=1e-10, rtol=0)


def test_tasks_that_differ_in_the_kernel_alone_are_weighed_by_bayes_rule() -> None:
    pool = pool_of(3, fixed=("features", "reward"))
    prompt = contexts(pool)
    features, states = pool.features.double(), prompt.layout.read(prompt.context, "features")
    path = torch.cdist(states, features).argmin(-1)  # [seeds, tasks, n], the same under every task
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for seed, task, known in np.ndindex(2, 3, 3):
        s, law = path[seed, task], pool.transition[seed, known].double()
        expected[seed, task, known] = pool.initial[seed, known, s[0]].double().log() + law[s[:-1], s[1:]].log().sum()
    found = PoolPredictor.of(pool, LAYOUT).log_likelihood(prompt)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-10, rtol=0)
    assert found.softmax(-1).amax() < 1 - 1e-6  # the negative control: no token identifies the task


def test_who_knows_one_task_predicts_it_whatever_the_context() -> None:
    predictor = PoolPredictor.of(pool_of(1), LAYOUT)
    other = contexts(pool_of(6))
    weights = predictor.weights.expand(-1, 6, -1)[..., None]
    expected = other.layout.read(other.query_tokens, "features") @ weights
    torch.testing.assert_close(predictor.predict(other), expected, atol=1e-10, rtol=0)


def test_batches_do_not_change_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, prompt = pool_of(4), contexts(pool_of(6, fixed=("reward",)))
    predictor = PoolPredictor.of(pool, LAYOUT)
    whole = predictor.predict(prompt)
    monkeypatch.setattr(analyses.task_diversity, "LARGEST_BATCH", 1)
    torch.testing.assert_close(predictor.predict(prompt), whole, atol=1e-12, rtol=0)


def test_the_threshold_is_where_the_median_comes_to_half_and_stays() -> None:
    pools = np.array([1.0, 4.0, 16.0, np.inf])
    skill = np.array([[0.6, 0.1, 0.7, 1.0], [0.6, 0.1, 0.6, 1.0], [0.9, 0.2, 0.1, 1.0]])  # medians .6, .1, .6, 1
    found = 4 * (16 / 4) ** ((0.5 - 0.1) / (0.6 - 0.1))  # not 1: there it does not last
    np.testing.assert_allclose(half_way(skill, pools), found, rtol=1e-12)
    np.testing.assert_allclose(half_way(7 * skill, pools), found, rtol=1e-12)  # whatever the unit
    assert half_way(-skill, pools) == np.inf
    np.testing.assert_allclose(half_way(np.stack([skill, -skill]), pools), [found, np.inf], rtol=1e-12)
    assert half_way(np.array([[0.5, 0.6, 0.7, 1.0]]), pools) == 1.0  # the smallest is enough
    assert half_way(np.array([[0.1, 0.6, 0.4, 1.0]]), pools) == np.inf  # only unlimited tasks are


def test_a_threshold_of_seeds_that_agree_is_sure() -> None:
    """Two seeds with one curve: the interval is a point; TD++ explains 0, .4 and .8: half from the second on."""
    pools, left = [2, 8, pd.NA], [1.0, 0.6, 0.2]
    tables = [
        tidy(
            np.full(2, value), {"seed": [0, 1]}, metric=metric, learner=learner, target="new", subject="baseline"
        ).assign(pool=pd.array([pool] * 2, dtype="Int64"), fixed="")
        for metric, learner, values in (("skill", "subject", [0.0, 0.1, 0.4]), ("disagreement", "td-plus-plus", left))
        for pool, value in zip(pools, values, strict=True)
    ]
    found = thresholds(pd.concat(tables)).set_index("learner")
    assert found.loc["td-plus-plus", ["value", "low", "high"]].tolist() == pytest.approx([8.0] * 3)
    assert found.loc["subject", "value"] == np.inf


def test_a_stranger_has_no_nearest_rival() -> None:
    left = {"td0": torch.tensor([0.1, 0.9, torch.nan]), "myopic": torch.tensor([0.2, 0.8, 0.3])}
    assert nearest(left) == ["td0", "none", "myopic"]


def test_the_tables_hold_every_pool_and_component(tables: Mapping[str, pd.DataFrame]) -> None:
    seeds = tables["seeds"]
    assert set(seeds.loc[seeds["fixed"] == "", "pool"].astype(object).fillna("unlimited")) == {2, "unlimited"}
    assert set(seeds["fixed"]) == {"", "kernel", "reward", "all"}
    by_heart = select(seeds, learner="pool", metric="disagreement", target="new")
    assert set(by_heart["pool"].dropna()) == {2}
    shares = select(tables["curves"], metric="nearest")
    np.testing.assert_allclose(shares.groupby(["pool", "fixed"], dropna=False)["value"].sum(), 1.0)


def test_every_seed_has_a_verdict(tables: Mapping[str, pd.DataFrame]) -> None:
    answers = tables["answers"]
    assert len(answers) == 2 * (2 + 3)  # seeds; a pool and unlimited tasks; two components and both of them
    assert set(answers["outcome"]) <= {"identified", "ambiguous", "none"}
    assert ((answers["outcome"] == "none") == (answers["learner"] == "")).all()
    assert answers["note"].str.len().min() > 0


def test_the_figure_and_the_summary_need_only_the_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    text = summarise(tables)
    assert "unlimited" in text
    assert "half of the unlimited skill" in text
    assert text.count("verdicts: ") == 5
    assert len(task_diversity.draw(tables).get_axes()) == 8


def test_tasks_without_a_law_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs tasks whose law is known"):
        run(TaskDiversity(task="cartpole", out=tmp_path))
