"""Jobs side by side: one process each, as many at a time as there are cores; above all, training many subjects."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from analyses.configs import SubjectSettings
from analyses.subjects import TrainedSubject, subject_folder, trained_subject
from models.artifacts import is_complete
from models.files import ArtifactError
from tasks.errors import LearnscopeError


def train_all(settings: Sequence[SubjectSettings]) -> list[TrainedSubject]:
    """The trained subject of every settings, in order; what is missing trains side by side.

    Complete runs are read, killed ones resume, and equal settings train once. One that fails lets the others finish;
    its error is then raised.
    """
    missing: dict[Path, SubjectSettings] = {}
    for each in settings:
        if not is_complete(folder := subject_folder(each)):
            missing[folder] = each
    errors = in_parallel(_attempt, [(each,) for each in missing.values()], "training", "subject")
    for error in filter(None, errors):
        raise error
    return [trained_subject(each) for each in settings]


def in_parallel(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], title: str, unit: str) -> list[Any]:
    """function(*job) of every job, in order, in up to `joblib.cpu_count()` processes under one progress bar.

    Each process computes on one thread, as such jobs cannot use more. What a job prints comes out, on standard error,
    when it is done. The processes end with this one when it is interrupted or terminated. Raises ArtifactError where
    one of them was killed. LOKY_MAX_CPU_COUNT limits their number.
    """
    if not jobs:
        return []
    results, n_processes = [], min(cpu_count(), len(jobs))
    with (
        _termination_as_exit(),
        parallel_config("loky", n_jobs=n_processes, inner_max_num_threads=1),
        tqdm(total=len(jobs), unit=unit, desc=title, disable=None) as bar,
    ):
        calls = (delayed(_heard)(function, job) for job in jobs)
        try:
            for said, result in Parallel(return_as="generator", batch_size=1)(calls):
                if said:
                    tqdm.write(said, file=sys.stderr, end="")
                results.append(result)
                bar.update()
        except TerminatedWorkerError as killed:
            raise ArtifactError(
                f"a process was killed while {title} (out of memory?); run the same command again, which resumes "
                f"trainings, and with LOKY_MAX_CPU_COUNT={max(1, n_processes // 2)} fewer run at a time"
            ) from killed
    return results


def _attempt(settings: SubjectSettings) -> LearnscopeError | None:
    """Trains one subject into its folder; the error that the user can mend."""
    try:
        trained_subject(settings)
    except LearnscopeError as error:
        return error
    return None


def _heard(function: Callable[..., Any], job: tuple[Any, ...]) -> tuple[str, Any]:
    """What it has to say, and its result."""
    with redirect_stderr(StringIO()) as said, redirect_stdout(said):
        try:
            result = function(*job)
        except Exception as error:
            error.add_note(said.getvalue())
            raise
    return said.getvalue(), result


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """SIGTERM raises SystemExit, as SIGINT does KeyboardInterrupt: joblib then ends its workers, which else live on."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
