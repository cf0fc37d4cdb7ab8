"""Constants are read off known networks as they were put in, and the tables hold what the figure and summary need."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.linear_autoregression import (
    STEP_SEQUENCES,
    SUBJECTS,
    Subject,
    constant_rows,
    error_rows,
    prediction_rows,
    run,
    summarise,
)
from analyses.linear_positions import positional_rows
from analyses.regression_configs import REGRESSION_ANALYSES
from analyses.tables import select
from figures import linear_autoregression
from figures.save import save_figure
from models.causal import CausalTransformer
from models.causal_config import CausalTraining
from models.causal_constructions import best_step_size, element_product, gradient_step, trace_relation
from models.train_causal import CausalRecord
from tasks.autoregressive import AutoregressiveFamily

D, LENGTH = 4, 6
PRESETS = REGRESSION_ANALYSES["linear-autoregression"]


def subject_of(name: str, model: CausalTransformer, kind: str) -> Subject:
    """As if training had ended at this network."""
    weights = {key: weight.detach()[None] for key, weight in model.named_parameters()}
    record = CausalRecord(torch.tensor([0]), torch.full((1, model.n_seeds), torch.nan), weights)
    family = AutoregressiveFamily(D, kind, augmented=model.config.augmented)
    return Subject(name, family, record, model.config, CausalTraining(LENGTH))


def constant(subject: Subject, metric: str) -> pd.Series:
    return select(constant_rows(subject), metric=metric).iloc[0]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, pd.DataFrame]:
    small = {"pairs": 5, "augmented_steps": 3, "unitary_steps": 3, "orthogonal_steps": 3}
    return run(replace(PRESETS.preset("smoke"), **small, out=tmp_path_factory.mktemp("runs")))


def test_the_constants_of_a_gradient_step() -> None:
    size = best_step_size(D, LENGTH - 1)
    model = gradient_step(torch.tensor([1.1 * size, size], dtype=torch.float64), D)
    subject = subject_of("augmented commuting", model, "unitary")
    step = constant(subject, "step")
    assert step["value"] == pytest.approx(1.1 * step["expected"], rel=1e-12)
    assert constant(subject, "twist")["value"] == 0
    found = select(prediction_rows(subject, 8), learner="gd")
    assert found["value"].to_numpy() == pytest.approx([(0.1 / 1.1) ** 2, 0.0] * 2, abs=1e-12)


def test_a_twist_is_counted_and_undone() -> None:
    model = gradient_step(torch.tensor([best_step_size(D, LENGTH - 1)], dtype=torch.float64), D)
    signs = torch.tensor([-1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        model.layout.block(model.P, "output", "features").mul_(signs[:, None])
        model.layout.block(model.Q, "previous", "features").mul_(signs)
    subject = subject_of("augmented commuting", model, "unitary")
    assert constant(subject, "twist")["value"] == 1
    assert constant(subject, "step")["value"] == pytest.approx(constant(subject, "step")["expected"], rel=1e-12)
    twisted, straight = select(prediction_rows(subject, 8), learner="gd")["value"]
    assert twisted > 0.1
    assert straight == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["unitary", "orthogonal"])
def test_the_constants_and_the_rule_of_the_plain_optima(kind: str) -> None:
    model = (element_product if kind == "unitary" else trace_relation)(D, LENGTH)
    subject = subject_of(f"plain {kind}", model, kind)
    table = constant_rows(subject).set_index("metric")
    np.testing.assert_allclose(table["value"], table["expected"], atol=1e-7)
    assert ("partner_over_own" in table.index) == (kind == "orthogonal")
    distances = prediction_rows(subject, 8).set_index("learner")["value"]
    assert distances["two-token"] == pytest.approx(0, abs=1e-12)
    assert distances.drop("two-token").min() > 0.1
    errors = select(error_rows(subject, 8), learner="network").set_index("states")["value"]
    assert errors[1] == pytest.approx(1, abs=1e-12)  # nothing to go by, and norm one
    assert errors.drop(1).max() < 1e-12


def test_the_haar_step_is_the_best_of_all_single_steps() -> None:
    model = gradient_step(torch.ones(1, dtype=torch.float64), D)
    subject = subject_of("augmented haar", model, "haar")
    best = subject.step_size

    def loss(size: float) -> float:
        scaled = gradient_step(torch.tensor([size], dtype=torch.float64), D)
        prompt = subject.prompt("step", STEP_SEQUENCES)
        return (scaled.predict(prompt) - prompt.answers).square().mean().item()

    assert loss(best) < min(loss(best - 0.01), loss(best + 0.01))
    assert best < 0.9 * best_step_size(D, LENGTH - 1)


def test_positions_alone_reach_the_authors_weights() -> None:
    rows = positional_rows("linear-autoregression", 50.0, 2)
    weight = select(rows, metric="weight", lag=1)
    np.testing.assert_allclose(weight["value"], weight["published"], rtol=0.02)
    rank = select(rows, metric="rank")
    assert (rank["value"] == rank["published"]).all()
    assert select(rows, metric="moved_null")["value"].max() < 1e-4
    assert select(rows, metric="moved_any")["value"].min() > 1e-2


def test_tables_summary_and_figure(tables: Mapping[str, pd.DataFrame], tmp_path: Path) -> None:
    assert set(tables["constants"]["subject"]) == set(tables["errors"]["subject"]) == set(SUBJECTS)
    assert not tables["constants"]["value"].isna().any()
    text = summarise(tables)
    for subject in SUBJECTS:
        assert subject in text
    assert all(len(line) < 160 for line in text.splitlines())
    paths = save_figure(linear_autoregression.draw, tables, tmp_path, "linear-autoregression")
    assert all(path.stat().st_size > 0 for path in paths)
