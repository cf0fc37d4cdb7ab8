"""Learning histories are whole runs of their source; what was killed goes on, and windows are pieces of them."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import models.histories
from algorithms.acting import interact
from algorithms.bandit import UCB
from models.folder import ArtifactError
from models.histories import Histories, Recorded, collect, every_kth_episode
from models.policy_config import HistoryConfig, PolicyConfig, PolicyTraining
from models.train_policy import train_policy
from tasks.bandits import BanditFamily
from tasks.errors import ConfigError
from tasks.interaction import Interaction, Step
from tasks.mdps import MDPFamily

CONFIG, ARMS = HistoryConfig(n_tasks=5, n_steps=20, tasks_per_shard=2, seed=3), BanditFamily(n_arms=3)


def same(a: Interaction, b: Interaction) -> bool:
    return all(torch.equal(getattr(a, f.name).double(), getattr(b, f.name).double()) for f in fields(Step))


def test_histories_are_the_sources_own(tmp_path: Path) -> None:
    found = collect(CONFIG, ARMS, UCB(), tmp_path)
    assert found.history.batch == (1, 5)
    for shard, n in enumerate((2, 2, 1)):
        tasks = ARMS.draw([3], "histories", shard, n)
        acted = interact(UCB(), tasks, 20, seeds=[3], purpose="histories/act", index=shard)
        assert same(acted, found.history.each(lambda x, shard=shard, n=n: x[:, 2 * shard : 2 * shard + n]))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["tasks"], row["steps"]) for row in rows] == [(2, 20), (2, 20), (1, 20)]
    assert rows[2]["last_reward"] == pytest.approx(float(found.history.reward[0, 4, -2:].mean()))
    assert (found.history.n_observations, found.history.n_actions) == (1, 3)


def test_a_killed_collection_goes_on_and_a_complete_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = collect(CONFIG, ARMS, UCB(), tmp_path / "whole")
    calls = []

    def counted(*arguments, **options):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(options["index"])
        return interact(*arguments, **options)

    monkeypatch.setattr(models.histories, "interact", counted)
    with pytest.raises(KeyboardInterrupt):
        collect(CONFIG, ARMS, UCB(), tmp_path / "killed")
    with pytest.raises(ArtifactError, match="no complete histories"):
        Histories.read(tmp_path / "killed")
    monkeypatch.setattr(models.histories, "interact", lambda *a, **o: (calls.append(o["index"]), interact(*a, **o))[1])
    assert same(collect(CONFIG, ARMS, UCB(), tmp_path / "killed").history, whole.history)
    assert calls == [0, 1, 2]
    assert same(collect(CONFIG, ARMS, UCB(), tmp_path / "whole").history, whole.history)
    assert calls == [0, 1, 2]


def test_another_collection_or_a_changed_file_is_refused(tmp_path: Path) -> None:
    collect(CONFIG, ARMS, UCB(), tmp_path)
    shard = tmp_path / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"shard-00001.safetensors is not the file that the run wrote"):
        Histories.read(tmp_path)
    (tmp_path / "DONE").unlink()
    with pytest.raises(ArtifactError, match="other histories"):
        collect(replace(CONFIG, n_steps=21), ARMS, UCB(), tmp_path)


def test_every_third_episode_is_kept() -> None:
    """Episodes of 2, 1, 3, 1, ... steps in one task, of one step each in the other."""
    done = torch.tensor([[[0, 1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]]]).bool()
    times = torch.arange(8).expand(1, 2, 8)
    history = Interaction(times, times, times.double(), times, done, 8, 8)
    kept = every_kth_episode(history, 3)
    assert kept.action.tolist() == [[[0, 1, 6], [0, 3, 6]]]
    assert kept.done.tolist() == [[[False, True, True], [True, True, True]]]
    assert every_kth_episode(history, 1) is history


def test_subsampled_histories_hold_whole_episodes(tmp_path: Path) -> None:
    family = MDPFamily("dense")  # episodes of 10 steps
    found = collect(HistoryConfig(4, 60, 2, 4), family, UCB(), tmp_path).history
    assert found.n_steps == 30
    assert found.done.nonzero()[:, -1].unique().tolist() == [9, 19, 29]


def test_windows_are_pieces_of_histories(tmp_path: Path) -> None:
    found = collect(CONFIG, ARMS, UCB(), tmp_path)
    windows = found.at(*found.windows([0, 1], "test", 0, 40, 6))
    assert windows.batch == (2, 40)
    whole = found.history.reward[0].unfold(-1, 6, 1).flatten(0, 1)
    actions = found.history.action[0].unfold(-1, 6, 1).flatten(0, 1)
    for seed in range(2):
        for window in range(40):
            fits = (whole == windows.reward[seed, window]).all(-1) & (actions == windows.action[seed, window]).all(-1)
            assert fits.any()
    assert same(found.at(*found.windows([1], "test", 0, 40, 6)), windows.each(lambda x: x[1:]))
    assert not same(found.at(*found.windows([0, 1], "test", 1, 40, 6)), windows)
    with pytest.raises(ConfigError, match="windows of 21 steps; these histories have 20"):
        found.windows([0], "test", 0, 1, 21)


def test_a_policy_is_distilled_from_what_is_stored(tmp_path: Path) -> None:
    source = Recorded(collect(CONFIG, ARMS, UCB(), tmp_path / "histories"), 6)
    window, targets = source.lesson([0], 0, 7, "cpu")
    assert torch.equal(targets.argmax(-1), window.action)
    training = PolicyTraining(steps=3, batch_tasks=4, tasks_at_once=4, snapshot_every=1)
    record = train_policy(PolicyConfig(1, 3, 6, d_model=8, d_mlp=8), training, source, [0], tmp_path / "policy")
    assert record.loss[1:].isfinite().all()
