"""Jobs side by side: one process each, as many at a time as there are cores.

A process loads this file first, then what its job needs: so nothing heavy is imported here.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from joblib import Parallel, cpu_count, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm import tqdm

from models.folder import ArtifactError
from tasks.progress import noted, progress, ticking


def in_parallel(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], title: str, unit: str) -> list[Any]:
    """function(*job) of every job, in order, in up to `joblib.cpu_count()` processes under one progress bar,
    beside which stands how far each of the running ones is.

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
        TemporaryDirectory() as room,
        progress(total=len(jobs), unit=unit, desc=title) as bar,
        ticking(bar, lambda: "; ".join(filter(None, (note.read_text() for note in sorted(Path(room).iterdir()))))),
    ):
        calls = (delayed(_heard)(function, job, Path(room, f"{i:06}")) for i, job in enumerate(jobs))
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


def _heard(function: Callable[..., Any], job: tuple[Any, ...], note: Path) -> tuple[str, Any]:
    """What it has to say, and its result; how far it is stands in the note meanwhile."""
    with redirect_stderr(StringIO()) as said, redirect_stdout(said), noted(note):
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
