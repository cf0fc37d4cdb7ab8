"""From the words of a command line to settings: what is misspelt, missing or out of range ends in one clear line.

tyro reads the words into a frozen dataclass; what it cannot say well in one line is checked before or after it.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import asdict, fields
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from analyses.configs import ContextLength
from tasks.errors import LearnscopeError, nearest, require

# What a setting must be, whatever the analysis: checked before anything is loaded.
RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "gamma": (lambda value: 0 < value < 1, "above 0 and below 1"),
    "lam": (lambda value: 0 <= value <= 1, "from 0 to 1"),
    "step_size": (math.isfinite, "a finite number"),
    "learning_rate": (lambda value: 0 < value < math.inf, "a finite number above 0"),
    "noise": (lambda value: 0 < value < math.inf, "a finite number above 0"),
    "probe_tasks": (lambda value: value >= 5, "at least 5, one for each fold"),
    "weight_decay": (lambda value: 0 <= value < math.inf, "a finite number of at least 0"),
    "rotation": (lambda value: value >= 0, "at least 0"),
    "seed": (lambda value: value >= 0, "at least 0"),
}
COUNT = (lambda value: value >= 1, "at least 1")
FOLDERS = ("out", "card")


class UsageError(LearnscopeError):
    """A command line that cannot be understood; the message says what was given and what would do."""


def parse(settings: type, arguments: list[str], prog: str, **options: Any) -> Any:
    """An instance of the dataclass `settings`. Raises UsageError; prints the help and ends where that is asked for."""
    given_values(settings, arguments, prog)
    screen = io.StringIO()
    try:
        with redirect_stderr(screen):
            parsed = tyro.cli(settings, args=arguments, prog=prog, **options)
    except SystemExit as end:
        if not end.code:
            raise
        # tyro draws a box: a title (and, where the terminal is ASCII, a rule), what is wrong, a rule, and further help
        lines = [line.strip("│ ") for line in screen.getvalue().splitlines()[1:]]
        message = " ".join(takewhile(_is_no_rule, lines[0 if _is_no_rule(lines[0]) else 1 :])).rstrip(".")
        raise UsageError(f"{message}. Hint: {prog} --help") from None
    for name, value in asdict(parsed).items():
        if name in FOLDERS and value:
            _require_writable(_flag(name), value)
        if value == () and getattr(options.get("default", settings), name):
            raise UsageError(f"{_flag(name)} needs at least one value")
        for number in value if isinstance(value, tuple) else (value,):
            count = isinstance(number, int) and not isinstance(number, bool)
            allowed, what = RANGES.get(name, COUNT if count else (lambda _value: True, ""))
            if not allowed(number):
                raise UsageError(f"{_flag(name)} is {number}; it must be {what}")
    if isinstance(parsed, ContextLength):
        if parsed.min_states > parsed.n_states:
            raise UsageError(f"--min-states is {parsed.min_states}; it must be at most --n-states, {parsed.n_states}")
        if parsed.n_tasks * parsed.seeds < 2:
            raise UsageError("--n-tasks is 1; intervals need at least 2, or more seeds")
    return parsed


def _require_writable(flag: str, folder: Path) -> None:
    """Raises UsageError where nothing could be written into a folder, or where it cannot be made."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not place.is_dir():
        what = f"the file {place}" if place == folder else f"{folder}, and {place} is a file"
        raise UsageError(f"{flag} is {what}; give a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} is {folder}, and nothing can be written in {place}; give another folder")


def given_values(settings: type, arguments: list[str], prog: str) -> dict[str, list[str]]:
    """The values that follow each option, by field. Raises UsageError or ConfigError, naming the nearest choice."""
    hints = get_type_hints(settings)
    options = {_flag(name): name for name in hints}
    options |= {_flag(f"no_{name}"): name for name, hint in hints.items() if hint is bool}
    given: dict[str, list[str]] = {}
    values: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            values.append(argument)
        elif (flag := _flag(flag[2:])) in options:
            values = given[options[flag]] = [value] if equals else []
        elif flag != "--help" and not flag.startswith("--tyro-"):
            raise UsageError(f"{prog} has no option {flag}; {nearest(flag, options)}Hint: {prog} --help")
    for name, entries in given.items():
        for entry in entries if get_origin(hints[name]) is tuple else entries[:1]:
            if choices := _choices(hints[name]):
                require(_flag(name), entry, choices)
    return given


def as_typed(message: str, settings: Iterable[type]) -> str:
    """The message with the setting that it begins with, as in "n_states is 1", in the user's spelling: --n-states."""
    name, verb, rest = message.partition(" is ")
    known = {field.name for each in settings for field in fields(each)}
    return f"{_flag(name)}{verb}{rest}" if name in known else message


def _is_no_rule(line: str) -> bool:
    return not line or not {*line} <= {*"─-"}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _choices(hint: Any) -> tuple[str, ...]:
    """What a Literal, a union or a tuple of them, allows; empty for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(choice for inner in get_args(hint) for choice in _choices(inner))
