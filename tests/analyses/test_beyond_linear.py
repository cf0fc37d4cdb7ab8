"""Architectures side by side on two tiny seeds: definitions hold for all of them, and a known one is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import analyses.beside_learners
import analyses.evidence
import analyses.parallel
import probes.interventions
from algorithms.fit import disagreement
from algorithms.temporal_difference import transitions
from analyses.beside_learners import BANK, beside_learners, constant_share, mean_reward
from analyses.beyond_linear import PUBLISHED, run, summarise, trained
from analyses.configs import BeyondLinear, SubjectSettings
from analyses.evidence import card
from analyses.inspect import report
from analyses.subjects import TrainedSubject, model_config
from analyses.tables import select
from figures import beyond_linear
from models import constructions
from models.config import ConfigError
from models.train import TrainingRecord
from models.value_transformer import ValueTransformer
from tasks.layout import Prompt

TINY: dict[str, Any] = {"seeds": 2, "train_tasks": 20, "d_features": 2, "n_states": 4, "context_length": 6}


@pytest.fixture(scope="module", autouse=True)
def few_tasks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.beside_learners, "FITTING_TASKS", 12)
        patch.setattr(analyses.beside_learners, "HELD_OUT_TASKS", 20)
        patch.setattr(analyses.evidence, "LAYER_TASKS", 12)
        patch.setattr(analyses.evidence, "CAUSAL_TASKS", 12)
        patch.setattr(probes.interventions, "N_PLACEBOS", 2)
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BeyondLinear:
    architectures = ("linear", "softmax-over-queries", "softmax-mlp")
    return BeyondLinear(out=tmp_path_factory.mktemp("runs"), architectures=architectures, n_layers=2, **TINY)


@pytest.fixture(scope="module")
def tables(config: BeyondLinear) -> dict[str, pd.DataFrame]:
    return run(config)


def test_every_architecture_has_every_score_by_seed(tables: dict[str, pd.DataFrame], config: BeyondLinear) -> None:
    own = select(tables["scores"], learner="subject")
    for architecture in config.architectures:
        for metric in ("iws", "ss", "vd", "skill", "r_squared", "constant_share"):
            assert select(own, subject=architecture, metric=metric)["seed"].tolist() == [0, 1]
        distances = select(tables["rivals"], subject=architecture, metric="disagreement", learner="td0")
        assert distances["seed"].isna().sum() == 1
        assert len(distances) == 3


def test_only_linear_attention_is_linear_in_the_query(tables: dict[str, pd.DataFrame]) -> None:
    own = select(tables["scores"], learner="subject").pivot_table("value", ["subject", "seed"], "metric")
    linear = own.loc["linear"]
    np.testing.assert_allclose(linear["r_squared"], 1, atol=1e-10)
    np.testing.assert_allclose(linear["iws"], linear["ss"], atol=1e-10)
    for architecture in ("softmax-over-queries", "softmax-mlp"):
        assert (own.loc[architecture, "r_squared"] < 1 - 1e-6).all()


def test_published_numbers_stand_beside_the_architectures_that_have_them(
    tables: dict[str, pd.DataFrame], config: BeyondLinear
) -> None:
    numbers = select(tables["scores"], learner="published")
    assert set(numbers["subject"]) == set(PUBLISHED) & set(config.architectures)
    assert select(numbers, subject="softmax-over-queries", metric="ss")["value"].tolist() == [0.459]


def test_figure_and_summary_need_only_the_tables(tables: dict[str, pd.DataFrame], config: BeyondLinear) -> None:
    text = summarise(tables)
    assert all(f"  {architecture}: skill" in text for architecture in config.architectures)
    assert text.count("verdicts by seed: ") == len(config.architectures)
    pages = beyond_linear.draw(tables)
    assert list(pages) == ["", *(f"card-{architecture}" for architecture in config.architectures)]
    assert len(pages[""].get_axes()) == 8
    assert "softmax attention with MLPs, 2 turns of one layer" in pages["card-softmax-mlp"].get_suptitle()


def test_every_architecture_has_the_evidence_card_that_inspect_draws(
    tables: dict[str, pd.DataFrame], config: BeyondLinear
) -> None:
    subject = trained(config, "softmax-mlp")
    sizes: dict[str, Any] = {"n_states": 4, "context_length": 6, "fitting_tasks": 12, "held_out_tasks": 20}
    expected = card(report(subject.network(), config.task, **sizes, rivals=BANK))
    for name in ("answers", "findings"):
        mine = select(tables[name], subject="softmax-mlp").reset_index(drop=True)
        columns = ["seed", "learner", "target", "value", "low", "high", "note"]
        pd.testing.assert_frame_equal(mine[columns], expected[name][columns])
        assert mine["network"].unique().tolist() == expected[name]["subject"].unique().tolist()


def test_the_mlp_is_four_times_as_wide_as_the_tokens(config: BeyondLinear) -> None:
    network = trained(config, "softmax-mlp").network()
    assert isinstance(network, ValueTransformer)
    assert network.config.d_mlp == 4 * 5


def test_an_activation_is_refused(config: BeyondLinear) -> None:
    with pytest.raises(ConfigError, match=r"activation is 'relu'; choose by --architectures"):
        run(replace(config, activation="relu"))


def test_a_network_that_runs_td_has_no_distance_to_it() -> None:
    """The construction with the reference's own step size: IWS = SS = 1, VD = 0, and TD(0) leaves nothing."""
    settings = SubjectSettings(**TINY)
    model = constructions.td0(torch.eye(2).expand(2, 1, 2, 2), n_layers=3)
    weights = {"P": model.P.detach()[None], "Q": model.Q.detach()[None]}
    record = TrainingRecord(torch.tensor([20]), torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2), weights)
    subject = TrainedSubject(settings, Path(), record, [0, 1], {}, model_config(settings))
    found = beside_learners(subject, {"subject": "td"})
    own = select(found["scores"], learner="subject").groupby("metric")["value"].mean()
    np.testing.assert_allclose(own[["iws", "ss", "r_squared"]], 1, atol=1e-10)
    np.testing.assert_allclose(own["vd"], 0, atol=1e-10)
    distances = select(found["rivals"], metric="disagreement").groupby("learner")["value"].max()
    assert distances["td0"] < 1e-10 < 0.02 < distances["myopic"]
    step_size = select(found["rivals"], metric="constant", learner="td0", target="step_size")["value"]
    np.testing.assert_allclose(step_size, 1, atol=1e-5)


def test_a_value_per_context_is_told_from_a_value_function(make_prompt: Callable[..., Prompt]) -> None:
    """A multiple of the mean reward is found again, seed by seed; noise beside it does not help any other multiple."""
    prompt = make_prompt(tasks=4)
    reward = transitions(prompt).reward.mean(-1)[..., None, None].expand(-1, -1, 6, 1)
    f = torch.tensor([3.0, -9.0], dtype=torch.float64)[:, None, None, None] * reward
    torch.testing.assert_close(mean_reward(f, prompt).predict(prompt), f, rtol=0, atol=1e-12)
    torch.testing.assert_close(constant_share(f, prompt), torch.ones(2, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    noisy = f + torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    best = mean_reward(noisy, prompt).step_size
    assert isinstance(best, torch.Tensor)
    assert (constant_share(noisy, prompt) < 1).all()

    def left(multiple: torch.Tensor) -> torch.Tensor:
        return disagreement(noisy, multiple[..., None] * reward, prompt).mean(-1)

    assert (left(best) < torch.minimum(left(best * 1.01), left(best * 0.99))).all()
