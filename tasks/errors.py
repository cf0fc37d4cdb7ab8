"""Errors that the user can mend: the command line ends in their one line. Whatever else is raised is a bug of ours."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LearnscopeError(ValueError):
    """The base of all of them; the message says what was given, what is allowed, and what to do."""


class ConfigError(LearnscopeError):
    """Settings that no task, network or run can have; the message names what is allowed and the nearest choice."""


def require(name: str, given: object, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError, with the nearest valid choice where one is near, unless `given` is one of `allowed`."""
    if given not in allowed:
        hint = nearest(given, allowed)
        raise ConfigError(f"{name} is {given!r}; {f'{hint}Allowed' if hint else 'allowed'}: {', '.join(allowed)}")


def nearest(given: object, allowed: Iterable[str]) -> str:
    """A guess at what was meant, "did you mean 'td0'? ", or nothing where nothing is spelt like it."""
    near = get_close_matches(str(given), list(allowed), n=1)
    return f"did you mean {near[0]!r}? " if near else ""
