"""How far work is: a bar on a terminal, a line a minute in a log, and from a worker process a note to its parent."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm import tqdm

SECONDS_UNTIL_SHOWN = 2.0  # what is over by then needs no bar
SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_TICKS = 1.0  # at least
_LINE = "{desc}, {unit} {n_fmt}/{total_fmt}: {elapsed} passed, {remaining} left{postfix}"
_NOTE = "{desc} {percentage:.0f} %, {remaining} left"
_note: ContextVar[Path | None] = ContextVar("note", default=None)


class _Lines:
    """A file that hands on every line: tqdm returns carriages and pads with blanks, as terminals want it to."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say

    def write(self, text: str) -> None:
        if line := text.strip():
            self._say(line)

    def flush(self) -> None:
        """Lines are handed on at once."""


def progress(
    iterable: Iterable[Any] | None = None, *, desc: str, unit: str, total: int | None = None, initial: int = 0
) -> tqdm[Any]:
    """Progress through an iterable with a length, or as a context manager with update() over `total` units.

    What is over in two seconds on a terminal, and elsewhere in a minute, is not seen.
    """
    options: dict[str, Any] = {
        "desc": desc,
        "unit": unit,
        "total": total,
        "initial": initial,
        "miniters": 1,
        "leave": False,
    }
    if note := _note.get():
        say, form, seconds = note.write_text, _NOTE, SECONDS_UNTIL_SHOWN
    elif sys.stderr.isatty():
        return tqdm(iterable, delay=SECONDS_UNTIL_SHOWN, **options)
    else:
        say, form, seconds = _to_stderr, _LINE, SECONDS_BETWEEN_LINES
    options |= {"bar_format": form, "mininterval": seconds, "delay": seconds}
    return tqdm(iterable, file=_Lines(say), position=0, **options)  # else one within another moves the cursor


@contextmanager
def ticking(bar: tqdm[Any], say: Callable[[], str] = str) -> Iterator[None]:
    """Within it, a bar whose units take long shows every second, or minute, that time passes, and what `say` says."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(max(SECONDS_BETWEEN_TICKS, bar.mininterval)):
            if (now := time.time()) >= bar.start_t + bar.delay:
                bar.last_print_t = now  # else it takes itself for one that was never shown, and stays when it is closed
                bar.set_postfix_str(say())

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        bar.set_postfix_str(say(), refresh=False)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def noted(note: Path) -> Iterator[None]:
    """Within it, progress overwrites a file, which is empty before and after."""
    token = _note.set(note)
    note.write_text("")
    try:
        yield
    finally:
        _note.reset(token)
        note.write_text("")
