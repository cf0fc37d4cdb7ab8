"""The CartPole analysis on two tiny seeds: its tables are complete, and it refuses what it is not about."""

from typing import Any

import pandas as pd
import pytest

import analyses.beside_learners
from analyses.cartpole import run, summarise
from analyses.configs import ANALYSES, CartPole
from analyses.tables import select
from figures import cartpole
from models.config import ConfigError


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    tiny: dict[str, Any] = {"seeds": 2, "train_tasks": 20, "d_features": 2, "context_length": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.beside_learners, "FITTING_TASKS", 12)
        patch.setattr(analyses.beside_learners, "HELD_OUT_TASKS", 20)
        yield run(CartPole(out=tmp_path_factory.mktemp("runs"), **tiny))


def test_every_curve_has_every_seed_and_snapshot(tables: dict[str, pd.DataFrame]) -> None:
    for metric in cartpole.CURVES:
        rows = select(tables["training"], metric=metric)
        assert set(rows["seed"]) == {0, 1}
        assert set(rows["task_count"]) >= {10, 20}
        assert rows["value"].notna().any()
    assert {"scores", "rivals", "emergence"} < set(tables)
    assert all(set(table["subject"]) == {"cartpole"} for table in tables.values())


def test_figure_and_summary_need_only_the_tables(tables: dict[str, pd.DataFrame]) -> None:
    assert "CartPole through tiles: 2 seeds, 20 tasks" in summarise(tables)
    assert len(cartpole.draw(tables).get_axes()) == 6


def test_the_paper_preset_is_the_published_setting() -> None:
    config = ANALYSES["cartpole"].preset("paper")
    assert (config.task, config.n_layers, config.looped, config.context_length) == ("cartpole", 3, True, 250)
    assert config.train_tasks == 10_000


@pytest.mark.parametrize("wrong", [{"activation": "softmax"}, {"task": "loop"}], ids=str)
def test_what_it_is_not_about_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="cartpole is about linear attention on cartpole"):
        run(CartPole(**wrong))
