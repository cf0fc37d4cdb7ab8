"""Dark rooms: where moves lead, what is worth a reward, and which goals are held out."""

import pytest
import torch

from tasks.decision import DecisionTasks, optimal_values
from tasks.gridworlds import HORIZONS, MOVES, GridFamily, moves
from tasks.interaction import Interaction
from tasks.rollout import random_walk, roll_out


def along(tasks: DecisionTasks, actions: list[int]) -> Interaction:
    """Everybody takes these actions."""
    plan = iter(actions)

    def law(seen: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.full_like(seen, next(plan)), 5).float()

    return roll_out(tasks, law, len(actions), seeds=range(tasks.batch[0]), purpose="test")


def test_moves_stay_inside() -> None:
    after = moves(4)
    for cell in range(16):
        for action, (down, right) in enumerate(MOVES):
            row, column = cell // 4 + down, cell % 4 + right
            inside = 0 <= row < 4 and 0 <= column < 4
            assert after[cell, action] == (4 * row + column if inside else cell)


class TestDarkRoom:
    def test_every_step_that_ends_at_the_goal_pays_and_every_episode_starts_in_the_centre(self) -> None:
        family = GridFamily(size=5)
        tasks = family.draw([0, 1], "test", 0, 25)
        goal = family.goals([0, 1], "test", 0, 25)
        history = random_walk(tasks, 61, seeds=[0, 1], purpose="test")
        assert history.n_observations == 25
        assert history.reward.equal((history.next_observation == goal).float())
        assert history.done[0, 0].nonzero().flatten().tolist() == [19, 39, 59]
        assert (history.observation[..., ::20] == 12).all()
        assert history.observation[..., 1:][~history.done[..., :-1]].equal(
            history.next_observation[..., :-1][~history.done[..., :-1]]
        )

    def test_the_best_way_is_the_shortest_one(self) -> None:
        family = GridFamily(size=5)
        values = optimal_values(family.draw([0], "test", 0, 25).to(torch.float64), 0.5).amax(-1)[0]
        for value, goal in zip(values, family.goals([0], "test", 0, 25)[0, :, 0].tolist(), strict=True):
            cells = torch.arange(25)
            steps = (cells // 5 - goal // 5).abs() + (cells % 5 - goal % 5).abs()
            torch.testing.assert_close(value, 0.5 ** (steps.clamp(min=1) - 2.0).double(), rtol=0, atol=1e-7)

    def test_in_the_hard_room_only_the_first_visit_pays(self) -> None:
        tasks = GridFamily("dark-room-hard", size=3, horizon=6).tasks(torch.tensor([[[4], [1], [3]]]))
        up, down, stay = 0, 1, 4
        history = along(tasks, [up, down, up, down, stay, stay] * 2)
        assert history.reward[0, 0].tolist() == [0, 1, 0, 0, 0, 0] * 2
        assert history.reward[0, 1].tolist() == [1, 0, 0, 0, 0, 0] * 2
        assert not history.reward[0, 2].any()
        assert history.n_observations == 9


class TestKeyToDoor:
    def test_the_door_pays_only_after_the_key_and_both_only_once(self) -> None:
        family = GridFamily("key-to-door", size=4)
        tasks, targets = family.draw([0, 1], "test", 0, 200), family.goals([0, 1], "test", 0, 200)
        history = random_walk(tasks, 150, seeds=[0, 1], purpose="test")
        stage = torch.zeros(2, 200, dtype=torch.int64)
        for t in range(150):
            cell = history.next_observation[..., t]
            aim = torch.cat([targets, torch.full_like(targets[..., :1], -1)], -1).gather(-1, stage[..., None])[..., 0]
            assert history.reward[..., t].equal((cell == aim).float())
            stage = torch.where(history.done[..., t], 0, stage + (cell == aim))
        returns = history.reward.view(2, 200, 3, 50).sum(-1)
        assert returns.unique().tolist() == [0, 1, 2]
        assert history.n_observations == 16

    def test_episodes_start_anywhere_without_the_key(self) -> None:
        tasks = GridFamily("key-to-door", size=3).draw([0], "test", 0, 1)
        starts = tasks.pick(torch.zeros(1, 2000).long()).reset(torch.rand(1, 2000))
        assert (torch.bincount(starts.flatten(), minlength=27)[:9] > 150).all()
        assert starts.max() < 9

    def test_one_cell_may_hold_both(self) -> None:
        tasks = GridFamily("key-to-door", size=2, horizon=3).tasks(torch.tensor([[[0, 0]]]))
        stay, up, left = 4, 0, 2
        history = along(tasks.pick(torch.zeros(1, 50).long()), [up, left, stay])
        assert (history.reward.sum(-1) == 2).all()


class TestSplits:
    @pytest.mark.parametrize("kind", HORIZONS)
    def test_no_goal_is_in_both_and_each_is_in_one(self, kind: str) -> None:
        train, test = (GridFamily(kind, size=4, split=split, held_out=0.25).choices for split in ("train", "test"))
        assert len(test) == GridFamily(kind, size=4).n_goals / 4
        assert torch.cat([train, test]).sort().values.equal(GridFamily(kind, size=4).choices)

    def test_is_a_function_of_its_seed_alone(self) -> None:
        first, again, other = (GridFamily(split="test", split_seed=seed).choices for seed in (1, 1, 2))
        assert first.equal(again)
        assert not first.sort().values.equal(other.sort().values)

    def test_tasks_have_the_goals_of_their_split_each_once_before_any_twice(self) -> None:
        family = GridFamily("key-to-door", size=3, split="test")
        key, door = family.goals([0, 5], "test", 0, 40).unbind(-1)
        number = key + 9 * door
        for seed in range(2):
            assert number[seed, :16].sort().values.equal(family.choices.sort().values)
            assert number[seed, 16:32].sort().values.equal(family.choices.sort().values)
        assert not number[0].equal(number[1])
        assert not number[0, :16].equal(number[0, 16:32])

    def test_the_split_does_not_depend_on_the_seeds_that_draw(self) -> None:
        seen = GridFamily(size=3, split="train").goals(range(20), "test", 0, 8).flatten()
        assert len(seen.unique()) == 7


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "darkroom"}, "did you mean 'dark-room'"),
        ({"split": "tests"}, "did you mean 'test'"),
        ({"size": 1}, "at least 2 x 2 cells"),
        ({"horizon": 0}, "horizon is 0"),
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"size": 3, "split": "test", "held_out": 0.01}, "0.01 of 9 goals: both parts need at least one"),
        ({"size": 3, "split": "train", "held_out": 0.99}, "0.99 of 9 goals: both parts need at least one"),
    ],
    ids=str,
)
def test_impossible_families_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridFamily(**wrong)
