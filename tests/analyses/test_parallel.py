"""Subjects trained side by side are the ones trained alone; failures are named; no process outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

import analyses.parallel
import analyses.subjects
from analyses.configs import SubjectSettings
from analyses.parallel import in_parallel
from analyses.subjects import subject_folder, train_all, trained_subject
from models.artifacts import is_complete
from models.files import ArtifactError

ROOT = Path(__file__).parents[2]
TINY = SubjectSettings(seeds=2, train_tasks=8, d_features=2, n_states=4, context_length=6)


def variants(out: Path) -> list[SubjectSettings]:
    tiny = replace(TINY, out=out)
    return [tiny, replace(tiny, gamma=0.5), tiny]


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyses.parallel, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("two_processes")
def test_processes_train_what_one_process_trains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subjects = train_all(variants(tmp_path / "side by side"))
    assert [subject.settings for subject in subjects] == variants(tmp_path / "side by side")
    assert subjects[0].folder == subjects[2].folder
    assert len(list((tmp_path / "side by side" / "subjects").iterdir())) == 2
    for subject, settings in zip(subjects, variants(tmp_path / "alone"), strict=True):
        alone = trained_subject(settings).model()
        assert torch.equal(subject.model().P, alone.P)
        assert torch.equal(subject.model().Q, alone.Q)
    assert capfd.readouterr().out == ""


def test_complete_runs_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = train_all([replace(TINY, out=tmp_path)])
    monkeypatch.setattr(analyses.subjects, "_attempt", lambda settings: pytest.fail(f"trains {settings}"))
    assert train_all([replace(TINY, out=tmp_path)])[0].folder == trained[0].folder


@pytest.mark.usefixtures("two_processes")
def test_an_error_is_raised_once_the_others_have_finished(tmp_path: Path) -> None:
    sound, other = variants(tmp_path)[:2]
    with pytest.raises(ArtifactError, match=r"all 2 seeds in .* diverged; lower --learning-rate"):
        train_all([replace(sound, learning_rate=1e30), sound, other])
    assert is_complete(subject_folder(sound))
    assert is_complete(subject_folder(other))


@pytest.mark.usefixtures("two_processes")
def test_a_killed_process_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(attempts: Iterable[object]) -> NoReturn:
        raise TerminatedWorkerError("SIGKILL(-9)")

    monkeypatch.setattr(analyses.parallel, "Parallel", lambda **options: dies)
    with pytest.raises(ArtifactError, match=r"a process was killed while training .* LOKY_MAX_CPU_COUNT=1"):
        train_all(variants(tmp_path))


@pytest.mark.usefixtures("two_processes")
def test_results_come_in_order_and_what_is_said_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    assert in_parallel(divmod, [(7, 2), (9, 4), (1, 1)], "dividing", "pair") == [(3, 1), (2, 1), (1, 0)]
    assert in_parallel(print, [("one",), ("two",)], "printing", "word") == [None, None]
    assert capfd.readouterr().err.split() == ["one", "two"]
    assert in_parallel(divmod, [], "dividing", "pair") == []


SLEEPERS = """
import os, signal, sys, time
from pathlib import Path
import analyses.parallel

def sleep(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)

analyses.parallel.cpu_count = lambda: 2
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with &
analyses.parallel.in_parallel(sleep, [(sys.argv[1],)] * 2, "sleeping", "job")
"""


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_no_worker_outlives_a_killed_run(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", SLEEPERS, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert wait_for(lambda: len(list(tmp_path.iterdir())) == 2), "both jobs have begun"
            workers = [int(path.name) for path in tmp_path.iterdir()]
            assert all(map(lives, workers))
            run.send_signal(number)
            _, said = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == status
    assert wait_for(lambda: not any(map(lives, workers)))
    assert "resource_tracker" not in said
