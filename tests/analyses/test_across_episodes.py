"""Across episodes: returns are what they are called, intervals are over goals, and who improves is said to improve."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import ttest_1samp

import analyses.parallel
from algorithms.acting import interact
from algorithms.bandit import Random
from algorithms.predictive_maps import GoalInference, distances
from analyses.across_episodes import (
    DISTILLED,
    ONE_MAP,
    PRETRAINED,
    SOURCE,
    TRANSFORMER,
    TRANSFORMER_OF_ALL,
    best_returns,
    by_goal,
    collected,
    episode_returns,
    family,
    halves,
    improvement,
    interval,
    run,
    subjects,
    summarise,
    training_rooms,
)
from analyses.configs import ANALYSES, AcrossEpisodes
from analyses.tables import select
from figures import across_episodes
from tasks.errors import ConfigError
from tasks.gridworlds import moves

SMOKE: AcrossEpisodes = ANALYSES["across-episodes"].preset("smoke")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AcrossEpisodes:
    return replace(SMOKE, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def tables(config: AcrossEpisodes) -> Mapping[str, pd.DataFrame]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analyses.parallel, "cpu_count", lambda: 1)
        return run(config)


def test_who_knows_the_goal_walks_there_and_stays() -> None:
    rooms = replace(family(SMOKE, "test"), size=5, split=None, horizon=7)
    goals = rooms.goals([0], "test", 0, 25)
    centre = distances(moves(5))[12, goals[..., 0]]
    expected = (7 - (centre - 1).clamp(min=0)).double()
    torch.testing.assert_close(best_returns(rooms.tasks(goals), 7).double(), expected, atol=1e-10, rtol=0)


def test_intervals_are_over_goals_however_often_each_is_asked() -> None:
    goals = torch.tensor([4, 2, 4, 4, 7])
    x = torch.tensor([[1.0, 5.0, 2.0, 6.0, -1.0]], dtype=torch.float64)
    each = by_goal(x, goals)
    torch.testing.assert_close(each, torch.tensor([[5.0, 3.0, -1.0]], dtype=torch.float64), atol=1e-10, rtol=0)
    mean, low, high = interval(each)
    expected = ttest_1samp(each[0].numpy(), 0.0).confidence_interval(0.95)
    assert float(mean) == pytest.approx(7 / 3, abs=1e-10)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-10)
    assert interval(each[:, :1])[1].isnan().all()


def test_who_infers_the_goal_improves_and_who_does_not_care_does_not() -> None:
    rooms = replace(family(SMOKE, "test"), size=4, split=None, horizon=6)
    tasks, goals = rooms.draw([0], "test", 0, 64), rooms.goals([0], "test", 0, 64)[0, :, 0]
    seeker = GoalInference(moves(4), temperature=1e-4, lapse=0.0, gamma=0.5)
    rows = {}
    for name, learner in {"seeker": seeker, "random": Random()}.items():
        got = episode_returns(interact(learner, tasks, 6 * 8, purpose="test"), 6)
        assert got.shape == (1, 64, 8)
        (rows[name],) = select(improvement(name, got, goals, [0], None), metric="improvement").itertuples()
    assert rows["seeker"].low > 1
    assert rows["random"].low < 0 < rows["random"].high


def test_training_never_sees_the_goals_of_the_test(config: AcrossEpisodes) -> None:
    histories = collected(config, family(config, "train")).histories.history
    at_goal = histories.next_observation[histories.reward > 0].unique()
    assert len(at_goal) > 0
    assert not torch.isin(family(config, "test").choices, at_goal).any()
    assert torch.isin(at_goal, family(config, "train").choices).all()
    assert training_rooms(config).family == family(config, "train")


def test_a_number_says_nothing_of_the_next_room(config: AcrossEpisodes) -> None:
    first, published = (
        collected(config, rooms).histories.history.observation[0, :, 0]
        for rooms in (training_rooms(config), family(config, "train"))
    )
    assert published.unique().tolist() == [4]  # the centre of a room of 3 x 3
    assert len(first.unique()) > 4


def test_each_policy_reads_its_own_part_of_the_histories(config: AcrossEpisodes) -> None:
    lessons, one_map = (collected(config, rooms) for rooms in (training_rooms(config), family(config, "train")))
    first, last = (half.histories.history for half in halves(lessons))
    assert lessons.histories.history.n_steps == 2 * config.n_steps
    whole = torch.cat([first.reward, last.reward], -1)
    torch.testing.assert_close(whole, lessons.histories.history.reward, atol=0, rtol=0)
    made = subjects(config, lessons, one_map)
    decided = {s.config.n_ctx * s.training.batch_tasks for s in made.values()}
    assert decided == {config.n_steps * config.batch_tasks}
    assert made[f"{DISTILLED}, 0.5"].config.n_ctx == config.horizon // 2
    assert made[TRANSFORMER].config.n_ctx == config.horizon
    assert made[TRANSFORMER_OF_ALL].config.n_ctx == config.n_steps
    assert made[ONE_MAP].config == made[DISTILLED].config
    assert len({subject.folder for subject in made.values()}) == len(made)


def test_tables_hold_every_episode_of_every_player(config: AcrossEpisodes, tables: Mapping[str, pd.DataFrame]) -> None:
    returns, gains = tables["returns"], tables["improvement"]
    assert set(returns["subject"]) >= {DISTILLED, PRETRAINED, SOURCE, "optimal", "random"}
    for _, rows in returns.groupby(["subject", "seed"]):
        assert rows["episode"].tolist() == list(range(1, config.episodes + 1))
    best = select(returns, subject="optimal")["value"].max()
    assert returns["value"].max() <= best + 1e-6
    wide = gains.pivot_table("value", ["subject", "seed"], "metric")
    assert (wide["improvement"] - (wide["last"] - wide["first"])).abs().max() < 1e-5
    assert select(gains, subject=DISTILLED)["context"].unique().tolist() == [config.episodes]
    assert select(gains, subject="random")["context"].isna().all()


def test_it_is_said_and_drawn(tables: Mapping[str, pd.DataFrame]) -> None:
    said = summarise(tables)
    assert len(said.splitlines()) == 1 + tables["returns"]["subject"].nunique()
    assert isinstance(across_episodes.draw(tables), Figure)


@pytest.mark.parametrize("episodes", [0.0, 4.0])
def test_contexts_are_shorter_than_all_episodes(tmp_path: Path, episodes: float) -> None:
    with pytest.raises(ConfigError, match=f"{episodes:g}; allowed: less than all 4"):
        run(replace(SMOKE, context_episodes=(episodes,), out=tmp_path))
