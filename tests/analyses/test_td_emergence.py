"""Emergence, end to end on two tiny seeds: tables are complete, and each definition does what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.configs import LayerRoles, TDEmergence, TDProbe
from analyses.layer_roles import run as run_layer_roles
from analyses.layer_roles import summarise as summarise_layer_roles
from analyses.subjects import TrainedSubject, model_config, trained_subject
from analyses.tables import tidy
from analyses.td_emergence import (
    EMERGENCE_EVALUATIONS,
    PUBLISHED,
    first_lasting_crossing,
    published,
    reward_routes,
    run,
    summarise,
)
from analyses.td_probe import run as run_td_probe
from analyses.td_probe import summarise as summarise_td_probe
from figures import layer_roles, td_emergence, td_probe
from models.files import ArtifactError
from models.train import TrainingRecord

TINY: dict[str, Any] = {"seeds": 2, "train_tasks": 40, "d_features": 2, "n_states": 4, "context_length": 6}
PAPER_METRICS = {
    "bootstrap_strength",
    "p_bottom_right",
    "p_others",
    "q_upper_left_trace",
    "q_upper_right_trace",
    "alpha_eff",
    "gamma_eff",
    "iws",
    "ss",
    "vd",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def tables(out):
    return run(TDEmergence(out=out, **TINY))


def test_the_training_table_has_every_published_metric_by_seed_and_step(tables):
    training = tables["training"]
    assert set(training["metric"]) >= PAPER_METRICS
    for metric in PAPER_METRICS:
        rows = training[training["metric"] == metric]
        assert set(rows["seed"]) == {0, 1}
        assert set(rows["task_count"]) >= {10, 20, 30, 40}


def test_iws_equals_ss_for_linear_attention(tables):
    training = tables["training"]
    scores = training.pivot_table("value", ["seed", "task_count"], "metric")[["iws", "ss"]]
    np.testing.assert_allclose(scores["iws"], scores["ss"], atol=1e-6)


def test_every_rival_stands_beside_the_subject(tables):
    rivals = tables["rivals"]
    assert len(rivals["learner"].unique()) == 12
    scored = rivals[rivals["learner"] == "subject"]
    assert set(scored["metric"]) == {"iws", "vd", "skill"}


def test_published_numbers_are_compared_only_with_the_published_setting(tables):
    assert tables["published"].empty


def test_figures_and_summaries_need_only_the_tables(tables):
    assert "bootstrapping" in summarise(tables)
    assert len(td_emergence.draw(tables).get_axes()) >= 11


def test_routes_tell_a_reward_that_is_a_value_from_one_that_is_a_key(out):
    subject = trained_subject(TDEmergence(out=out, **TINY))
    record = subject.record
    record.P[-1], record.Q[-1] = 0.0, 0.0
    record.P[-1, 0, ..., -1, -1], record.Q[-1, 0, ..., 0, 0] = 2.0, 3.0  # seed 0: P[r, r] Q[phi, phi]
    record.P[-1, 1, ..., -1, 0], record.Q[-1, 1, ..., -1, 0] = 2.0, 5.0  # seed 1: P[r, phi] Q[r, phi]
    routes = reward_routes(subject).pivot_table("value", "seed", "metric")
    assert routes["reward_as_value"].tolist() == [6.0, 0.0]
    assert routes["reward_as_key"].tolist() == [0.0, 10.0]


def test_emergence_needs_a_lasting_crossing():
    at = np.arange(30)
    blip = np.where(at == 5, 1.0, 0.0)
    assert np.isnan(first_lasting_crossing(blip, at))
    lasting = np.where((at >= 12) & (at < 12 + EMERGENCE_EVALUATIONS), 1.0, 0.0)
    assert first_lasting_crossing(lasting, at) == 12
    assert np.isnan(first_lasting_crossing(np.where(at == 25, 1.0, lasting)[:20], at[:20]))


def test_probes_find_nothing_in_shuffled_and_random_targets(out):
    tables = run_td_probe(TDProbe(out=out, probe_tasks=40, **TINY))
    found = tables["probe"].groupby("control")["value"].max()
    assert found["none"] > 0.5  # the positive control
    assert found["shuffled"] < 0.1
    assert found["random"] < 0.1
    assert "ridge probes" in summarise_td_probe(tables)
    assert td_probe.draw(tables).get_axes()


def test_the_block_of_one_layer_has_no_gradient_so_only_weight_decay_moves_it(out):
    tables = run_layer_roles(LayerRoles(out=out, **TINY))
    change = tables["block"][tables["block"]["metric"] == "block_change"].groupby("subject")["value"].max()
    assert change["L=1 without weight decay"] == 0.0
    assert change["L=1"] > 0.0
    assert "weight decay" in summarise_layer_roles(tables)
    assert layer_roles.draw(tables).get_axes()


def test_a_training_in_which_every_seed_diverged_is_refused(out):
    with pytest.raises(ArtifactError, match=r"all 2 seeds .* diverged; lower --learning-rate"):
        trained_subject(TDEmergence(out=out, learning_rate=1e30, **TINY))


def test_the_difference_to_a_published_mean_counts_both_samples_of_seeds():
    settings = TDEmergence(seeds=4)
    record = TrainingRecord(*[torch.zeros(1)] * 4, weights={})
    subject = TrainedSubject(settings, Path(), record, [0, 1, 2, 3], {}, model_config(settings))
    values = {metric: np.array([1.0, 2.0, 3.0, 6.0]) for metric in PUBLISHED}
    axes = {"task_count": list(range(10, 4001, 10)), "seed": [0, 1, 2, 3]}
    training = pd.concat([tidy(np.tile(v, (400, 1)), axes, metric=metric) for metric, v in values.items()])
    table = published(training, subject).pivot_table("value", ["learner", "target"], "metric")
    row = table.loc[("iws", "tasks 3501-4000")]
    assert row["ours"] == 3.0
    error = np.std([1, 2, 3, 6], ddof=1) * np.sqrt(1 / 4 + 1 / 30)
    np.testing.assert_allclose(row["z"], (3.0 - 0.926) / error)
