"""Recorded laws are those by which the source acted, at the very steps that a window shows."""

from pathlib import Path

import pytest
import torch

from algorithms.control import QLearning
from models.histories import collect
from models.policy_config import HistoryConfig
from models.policy_sources import PolicySource, watched
from models.recorded_laws import RecordedLaws, with_laws
from tasks.errors import ConfigError
from tasks.gridworlds import GridFamily

ROOMS, SOURCE = GridFamily(size=3, horizon=5), QLearning(temperature=0.2, step_size=0.5)
SETTING = HistoryConfig(n_tasks=6, n_steps=40, tasks_per_shard=6, seed=2)


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> RecordedLaws:
    return with_laws(collect(SETTING, ROOMS, SOURCE, tmp_path_factory.mktemp("histories")), SOURCE, 7)


def test_laws_are_those_by_which_the_source_acted(lessons: RecordedLaws) -> None:
    tasks = ROOMS.draw([2], "histories", 0, 6)
    history, laws = watched(SOURCE, tasks, 40, seeds=[2], purpose="histories/act", index=0)
    assert history.action.equal(lessons.histories.history.action)
    torch.testing.assert_close(lessons.laws, laws, atol=1e-6, rtol=0)
    assert (laws[:, :, -1] - laws[:, :, 0]).abs().max() > 0.1


def test_targets_belong_to_the_steps_of_their_window(lessons: RecordedLaws) -> None:
    assert isinstance(lessons, PolicySource)
    window, targets = lessons.lesson([0, 4], 3, 8, "cpu")
    assert window.batch == (2, 8)
    assert targets.shape == (2, 8, 7, 5)
    whole, names = lessons.histories.history, ("observation", "action", "reward", "next_observation")
    starts = set()
    for seed in range(2):
        for n in range(8):
            found = [
                (task, t)
                for task in range(6)
                for t in range(34)
                if lessons.laws[0, task, t : t + 7].equal(targets[seed, n])
                and all(getattr(whole, x)[0, task, t : t + 7].equal(getattr(window, x)[seed, n]) for x in names)
            ]
            assert found
            starts.add(found[0])
    assert len(starts) > 8
    alone, law = lessons.lesson([4], 3, 8, "cpu")
    assert alone.action[0].equal(window.action[1])
    assert law[0].equal(targets[1])


def test_a_part_keeps_laws_and_steps_together_and_says_so(lessons: RecordedLaws) -> None:
    kept = torch.arange(40).view(-1, 5)[::2].flatten()
    part = lessons.at(kept, "every 2nd episode")
    assert part.laws.equal(lessons.laws[..., kept, :])
    assert part.histories.history.reward.equal(lessons.histories.history.reward[..., kept])
    assert "every 2nd episode" in repr(part)
    assert repr(part) != repr(lessons)


def test_what_was_learnt_in_missing_episodes_is_not_to_be_known(tmp_path: Path) -> None:
    some = collect(HistoryConfig(n_tasks=2, n_steps=20, keep_every=2), ROOMS, SOURCE, tmp_path)
    with pytest.raises(ConfigError, match="keep_every is 2; laws need histories of all episodes"):
        with_laws(some, SOURCE, 7)
