"""Subjects trained side by side are the ones trained alone; a failure is named and stops nobody else."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError

import analyses.parallel
from analyses.configs import SubjectSettings
from analyses.parallel import train_all
from analyses.subjects import subject_folder, trained_subject
from models.artifacts import is_complete
from models.files import ArtifactError

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
    monkeypatch.setattr(analyses.parallel, "_train", lambda settings: pytest.fail(f"trains {settings}"))
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
    with pytest.raises(ArtifactError, match=r"a training process was killed .* LOKY_MAX_CPU_COUNT=1"):
        train_all(variants(tmp_path))
