"""Training many subjects side by side: one process each, as many at a time as there are cores."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from analyses.configs import SubjectSettings
from analyses.subjects import TrainedSubject, subject_folder, trained_subject
from models.artifacts import is_complete
from models.files import ArtifactError
from tasks.errors import LearnscopeError


def train_all(settings: Sequence[SubjectSettings]) -> list[TrainedSubject]:
    """The trained subject of every settings, in order; what is missing trains in up to `joblib.cpu_count()` processes.

    Each process computes on one thread, as one training cannot use more. Complete runs are read, killed ones resume,
    and equal settings train once. One that fails lets the others finish; its error is then raised. Raises ArtifactError
    where a process was killed. LOKY_MAX_CPU_COUNT limits the processes.
    """
    missing: dict[Path, SubjectSettings] = {}
    for each in settings:
        if not is_complete(folder := subject_folder(each)):
            missing[folder] = each
    errors = _train(list(missing.values())) if missing else []
    if errors:
        raise errors[0]
    return [trained_subject(each) for each in settings]


def _train(settings: Sequence[SubjectSettings]) -> list[LearnscopeError]:
    """Trains them, under one progress bar; the errors of those that failed."""
    errors = []
    n_processes = min(cpu_count(), len(settings))
    with (
        parallel_config("loky", n_jobs=n_processes, inner_max_num_threads=1),
        tqdm(total=len(settings), unit="subject", desc="training", disable=None) as bar,
    ):
        try:
            for said, error in Parallel(return_as="generator_unordered")(delayed(_attempt)(each) for each in settings):
                if said:
                    tqdm.write(said, file=sys.stderr, end="")
                errors += [error] if error else []
                bar.update()
        except TerminatedWorkerError as killed:
            raise ArtifactError(
                "a training process was killed (out of memory?); the same command resumes, and with "
                f"LOKY_MAX_CPU_COUNT={max(1, n_processes // 2)} fewer run at a time"
            ) from killed
    return errors


def _attempt(settings: SubjectSettings) -> tuple[str, LearnscopeError | None]:
    """Trains one subject into its folder; what it had to say, and the error that the user can mend."""
    with redirect_stdout(sys.stderr), redirect_stderr(StringIO()) as said:
        try:
            trained_subject(settings)
        except LearnscopeError as error:
            return said.getvalue(), error
    return said.getvalue(), None
