"""What an analysis asks of its settings beyond their types and signs, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import ConfigError, require


def at_least(name: str, given: int, least: int, why: str) -> None:
    """Raises ConfigError, which names the nearest valid choice, where the setting `name` is less than `least`."""
    if given < least:
        raise ConfigError(f"{name} is {given}; allowed: at least {least}, {why}")


def once_each(name: str, given: Sequence[str], allowed: tuple[str, ...]) -> None:
    """Raises ConfigError for an unknown name, with the nearest one where one is near, and for one that comes twice."""
    for each in given:
        require(name, each, allowed)
        if given.count(each) > 1:
            raise ConfigError(f"{name} is {', '.join(given)}; allowed: each once, not {each} again")
