"""Tables of learning histories: what they count on histories made by hand, and what random and best actors bring."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from algorithms.acting import interact
from algorithms.bandit import Random
from analyses.histories import (
    block_ends,
    by_task,
    episode_returns,
    expected_outcome,
    first_positive,
    found_curve,
    in_blocks,
    learning_curve,
    ranks,
    raster,
    room_visits,
    tabulated,
    visits,
)
from analyses.tables import select
from figures import histories as figure
from tasks.bandits import bandits
from tasks.decision import finite_horizon_values
from tasks.gridworlds import GridFamily
from tasks.interaction import Interaction
from tasks.mdps import MDPFamily


def made(reward: torch.Tensor, cells: torch.Tensor | None = None, n: int = 4) -> Interaction:
    """A history (1, tasks, steps) of these rewards; the source stays where it is."""
    where = torch.zeros(reward.shape, dtype=torch.int64) if cells is None else cells
    return Interaction(where, torch.zeros_like(where), reward, where, torch.zeros_like(where).bool(), n, 2)


REWARDS = torch.tensor([[[0, 0, 0, 1, 1, 1, 9], [0, 0, 0, 0, 0, 0, 9], [1, 0, 0, 0, 1, 0, 9]]]).double()


def test_returns_are_of_whole_episodes() -> None:
    assert episode_returns(made(REWARDS), 2).tolist() == [[[0, 1, 2], [0, 0, 0], [1, 0, 1]]]


def test_curves_are_means_and_quantiles_over_tasks() -> None:
    curve = learning_curve(made(REWARDS), 2)
    mean, median = select(curve, metric="return"), select(curve, metric="median")
    returns = np.array([[0, 1, 2], [0, 0, 0], [1, 0, 1]])
    np.testing.assert_allclose(mean["value"], returns.mean(0), atol=1e-10)
    np.testing.assert_allclose(mean[["low", "high"]].T, np.quantile(returns, (0.1, 0.9), axis=0), atol=1e-10)
    assert median["value"].tolist() == [0, 0, 1]
    assert mean["episode"].tolist() == [1, 2, 3]
    reward = select(learning_curve(made(REWARDS), None), metric="reward")
    np.testing.assert_allclose(reward["value"], REWARDS[0].mean(0), atol=1e-10)  # fewer steps than tenths


def test_blocks_hold_every_entry_once() -> None:
    x = torch.arange(1.0, 24.0).double()
    ends = block_ends(23, 10)
    sizes = np.diff([0, *ends])
    assert (ends[-1], sizes.min(), sizes.max()) == (23, 2, 3)
    np.testing.assert_allclose((in_blocks(x, 10).numpy() * sizes).sum(), x.sum(), atol=1e-10)
    assert in_blocks(x, 10)[-1] == 22.5


def test_the_goal_is_found_with_the_first_reward() -> None:
    assert first_positive(torch.tensor([[0.0, 2, 1], [0, 0, -1]])).nan_to_num(nan=-1).tolist() == [2, -1]
    shares = found_curve(made(REWARDS), 2)
    assert select(shares, metric="solved")["value"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert select(shares, metric="found")["value"].tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_improvement_is_the_last_tenth_less_the_first() -> None:
    table = by_task(made(REWARDS), 2, sparse=True)
    assert select(table, metric="improvement")["value"].tolist() == [2, 0, 0]
    assert select(table, metric="found")["value"].fillna(-1).tolist() == [2, -1, 1]
    assert "found" not in by_task(made(REWARDS), 2, sparse=False)["metric"].tolist()


def test_the_raster_sorts_tasks_by_when_they_are_learnt() -> None:
    first = raster(made(REWARDS), 2, sparse=True)
    assert first["task"].drop_duplicates().tolist() == [2, 0, 1]
    assert first["value"].tolist() == [1, 0, 1, 0, 1, 2, 0, 0, 0]
    assert raster(made(REWARDS), 2, sparse=False)["task"].drop_duplicates().tolist() == [0, 2, 1]


def test_visits_are_shares_of_the_first_and_last_steps() -> None:
    where = torch.tensor([[0, 1, 1, 1, 2], [2, 0, 0, 0, 1]])
    shares = visits(where, torch.tensor([[0, 1, 2], [1, 2, 0]]))  # tenths of one step
    assert select(shares, metric="first")["value"].tolist() == [1.0, 0, 0]
    assert select(shares, metric="last")["value"].tolist() == [0.0, 0, 1]
    cells = torch.tensor([[[0, 1, 3], [0, 0, 0], [2, 2, 2]]])
    maps = room_visits(made(torch.tensor([[[0.0, 0, 1], [0, 0, 0], [1, 0, 0]]]), cells), 2)
    everyone = select(maps, target="all", metric="last")
    assert everyone[["row", "column", "value"]].to_numpy().tolist() == [
        [0, 0, 1 / 3], [0, 1, 0], [1, 0, 1 / 3], [1, 1, 1 / 3]
    ]  # fmt: skip
    assert select(maps, target="median", metric="rewards")["value"].tolist() == [0, 0, 1, 0]  # the task found in step 1


def test_who_acts_at_random_gets_the_mean_of_many_and_the_best_get_what_planning_says() -> None:
    rooms = GridFamily("dark-room", 3, horizon=4).draw([0], "test", 0, 9)
    best = expected_outcome(rooms, 1, lambda q: q.amax(-1))
    planned = (rooms.start * finite_horizon_values(rooms, 4).amax(-1)).sum(-1)
    torch.testing.assert_close(best, planned, atol=1e-6, rtol=0)
    chance = expected_outcome(rooms, 1, lambda q: q.mean(-1))
    many = episode_returns(interact(Random(), rooms, 4 * 100, purpose="test"), 4).mean(-1)
    assert (chance - many).mean().abs() < 0.1
    coins = bandits(torch.tensor([[[0.2, 0.6]]]).double())
    assert expected_outcome(coins, 50, lambda q: q.mean(-1)).tolist() == [[pytest.approx(0.4)]]


def test_a_tree_pays_its_best_walker_every_so_many_moves() -> None:
    """A leaf of a tree of 7 places is two moves from the root: a reward in every second step, although episodes end."""
    tree = MDPFamily("tree", 7).draw([0], "test", 0, 5).to(torch.float64)
    best = expected_outcome(tree, 100, lambda q: q.amax(-1))
    torch.testing.assert_close(best, torch.full_like(best, 0.5), atol=1e-10, rtol=0)


def test_ranks_begin_beside_the_goal_and_finish_where_episodes_end() -> None:
    tree = MDPFamily("tree", 7).draw([0], "test", 0, 20)
    number = ranks(tree)
    assert number.sort(-1).values.tolist() == [[list(range(7))] * 20]
    assert (number[tree.terminal] == 6).all()
    assert (tree.mean_rewards.amax(-1).gather(-1, number.argsort(-1)[..., :1]) == 1).all()


@pytest.mark.parametrize(
    ("family", "size", "panels"),
    [(GridFamily("key-to-door", 2, horizon=5), 2, 7), (MDPFamily("chain", 4), None, 4), (MDPFamily("dense"), None, 3)],
)
def test_what_was_collected_is_drawn(family: GridFamily | MDPFamily, size: int | None, panels: int) -> None:
    tasks = family.draw([0], "test", 0, 6)
    parts = [tasks.select(slice(0, 4)), tasks.select(slice(4, 6))]
    tables = tabulated(interact(Random(), tasks, 40, purpose="test"), parts, size=size)
    assert tables["tasks"]["task"].nunique() == 6
    facts = {"analysis": "task", "learner": "random", "keep_every": 1}
    drawn = figure.draw({name: table.assign(**facts) for name, table in tables.items()})
    assert isinstance(drawn, Figure)
    assert len(drawn.axes) == panels + 1 + (size is not None)  # the colour bars
