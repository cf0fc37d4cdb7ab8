"""The trainer: seeds are independent, a killed run ends at the same bits, what diverges is named."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.artifacts import DONE, is_complete
from models.config import LinearTransformerConfig, TrainingConfig
from models.files import ArtifactError, read_tensors
from models.train import TrainingRecord, train
from tasks.markov_reward import TaskFamily

CONFIG = LinearTransformerConfig(2, True, 2)
TRAINING = TrainingConfig(context_length=5, train_tasks=40, windows_per_batch=8)
FAMILY = TaskFamily(n_states=4, d_features=2)


def run(folder: Path, seeds=(0, 1), training=TRAINING, config=CONFIG) -> TrainingRecord:
    return train(config, training, FAMILY, seeds, folder, compiled=False)


def test_a_seed_trains_alike_alone_and_beside_others(tmp_path):
    alone, beside = run(tmp_path / "a", [4]), run(tmp_path / "b", [1, 4])
    torch.testing.assert_close(alone.P[:, 0], beside.P[:, 1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["linear", "relu", "softmax", "softmax-over-queries"])
@pytest.mark.parametrize("objective", ["td", "true-value", "monte-carlo"])
def test_every_objective_moves_the_weights_of_every_activation(tmp_path, activation, objective):
    training = TrainingConfig(objective=objective, context_length=5, train_tasks=2, windows_per_batch=8)
    record = run(tmp_path, config=LinearTransformerConfig(2, True, 2, activation=activation), training=training)
    assert record.task_count.tolist() == [0, 2]
    assert (record.P[0] != record.P[1]).any(-1).all()
    assert record.P.isfinite().all()


def test_linear_training_equals_training_through_the_hooked_network(tmp_path, monkeypatch):
    fast = run(tmp_path / "fast")
    monkeypatch.setattr("models.train.collapses", lambda config: False)
    slow = run(tmp_path / "slow")
    torch.testing.assert_close(fast.P[1], slow.P[1], rtol=0, atol=1e-5)


def test_a_complete_run_is_loaded_and_a_changed_one_refused(tmp_path):
    first = run(tmp_path)
    stamp = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert torch.equal(run(tmp_path).P, first.P)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == stamp
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.safetensors is not the file that the run wrote"):
        is_complete(tmp_path)


def test_a_truncated_checkpoint_is_named(tmp_path):
    run(tmp_path)
    (tmp_path / DONE).unlink()
    checkpoint = tmp_path / "training.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"training.safetensors is damaged"):
        run(tmp_path)


def test_divergence_is_named_by_seed(tmp_path, capsys):
    training = TrainingConfig(context_length=5, train_tasks=20, windows_per_batch=8, learning_rate=1e30)
    record = run(tmp_path, training=training)
    assert set(record.diverged()) == {0, 1}
    assert "seed 0 diverged by task 10" in capsys.readouterr().err


KILLED = """
import sys
from pathlib import Path
import models.train
import models.training_state
from models.config import LinearTransformerConfig, TrainingConfig
from tasks.markov_reward import TaskFamily

models.training_state.SECONDS_BETWEEN_CHECKPOINTS = 0.0
training = TrainingConfig(context_length=5, train_tasks=int(sys.argv[2]), windows_per_batch=8)
family = TaskFamily(n_states=4, d_features=2)
models.train.train(LinearTransformerConfig(2, True, 2), training, family, (0, 1), Path(sys.argv[1]), compiled=False)
"""


def test_a_run_killed_in_mid_training_resumes_to_bit_identical_weights(tmp_path):
    n_tasks = 64
    whole = run(tmp_path / "whole", training=TrainingConfig(context_length=5, train_tasks=n_tasks, windows_per_batch=8))
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(n_tasks)]
    process = subprocess.Popen(command, cwd=root, env=environment)
    checkpoint = tmp_path / "killed" / "training.safetensors"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / DONE).exists()
    _, metadata = read_tensors(checkpoint)
    assert 0 < int(metadata["task_count"]) < n_tasks
    resumed = run(
        tmp_path / "killed", training=TrainingConfig(context_length=5, train_tasks=n_tasks, windows_per_batch=8)
    )
    for name in ("task_count", "P", "Q", "step_size"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))
