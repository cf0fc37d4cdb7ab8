"""Policies on new bandits: what is measured of learners whose reward is known, then the whole analysis, small."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from algorithms.acting import follow
from algorithms.bandit import Random, Thompson
from algorithms.fit_laws import kl
from analyses.configs import ANALYSES
from analyses.in_context_improvement import held_contexts, laws, median_seed, published, rewards, run, summarise
from analyses.policy_subjects import played
from analyses.tables import select
from figures.in_context_improvement import draw
from figures.save import save_figure
from tasks.bandits import BanditFamily

SMOKE = ANALYSES["in-context-improvement"].preset("smoke")


def test_rewards_are_expected_ones_and_differences_are_paired() -> None:
    tasks = BanditFamily(n_arms=2).draw([0], "test", 0, 400)
    histories = {"thompson": played(Thompson(), tasks, 10, [0]), "random": played(Random(), tasks, 10, [0])}
    table = rewards(histories, tasks, {"thompson": [0], "random": [0]})
    total = select(table, metric="total").set_index("subject")["value"]
    gap = select(table, metric="difference", subject="random").iloc[0]
    assert gap["value"] == pytest.approx(total["random"] - total["thompson"], abs=1e-4)
    assert gap["high"] < 0 < total["oracle"] - total["thompson"]
    means = tasks.mean_rewards[0, :, 0]
    assert total["oracle"] == pytest.approx(10 * means.amax(-1).mean().item(), rel=1e-5)
    steps = select(table, metric="reward", subject="thompson")
    assert steps["value"].sum() == pytest.approx(total["thompson"], rel=1e-5)


def test_kl_of_a_law_from_itself_is_zero_and_of_a_sure_one_from_a_coin_ln_2() -> None:
    coin, sure = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    assert kl(coin, coin) == 0
    assert kl(sure, coin).item() == pytest.approx(0.6931472)


def test_the_analysis_runs_and_is_drawn(tmp_path: Path) -> None:
    config = replace(SMOKE, seeds=2, n_steps=6, out=tmp_path)
    tables = run(config)
    assert {*tables} == {"reward", "laws", "offline", "training"}
    assert set(tables["laws"]["target"]) == {"thompson", "mixed", "reinforced"}
    assert "distilled" in summarise(tables)
    assert median_seed(select(tables["reward"], subject="distilled", metric="total"))["low"] > 0
    assert all(path.stat().st_size > 0 for path in save_figure(draw, tables, tmp_path, "figure"))


def test_a_perfect_student_is_at_no_distance_from_thompson(tmp_path: Path) -> None:
    config = replace(SMOKE, n_steps=6, out=tmp_path)
    tasks = BanditFamily(n_arms=config.n_arms).draw([0], "test", 0, 10)
    contexts = held_contexts(tasks, {"reinforced": played(Random(), tasks, 6, [0])}, 6)
    table = laws({"student": lambda history: follow(Thompson(), history).laws}, contexts, {"student": [0]})
    assert (select(table, metric="kl")["value"].abs() < 1e-6).all()


def test_published_totals_stand_beside_their_own_setting_alone() -> None:
    laptop = ANALYSES["in-context-improvement"].preset("laptop")
    assert published(laptop)["value"].tolist() == [78.3, 78.7]
    assert published(replace(laptop, n_steps=20)).empty
