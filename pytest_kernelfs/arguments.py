"""Arguments that would be taken for something else, or fail far from where they were given, are refused."""

from __future__ import annotations

import math
import numbers
import os
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from pytest_kernelfs.errors import UsageError


def check_texts(what: str, given: Any) -> list[str]:
    """The texts of a list. Raises: UsageError, naming ``what``, also for a text alone: that is no list of its
    letters.
    """
    if isinstance(given, str):
        raise UsageError(f"{what}: {given!r} is one text, not a list of them; write [{given!r}]")
    if not isinstance(given, Iterable):
        raise UsageError(f"{what}: {given!r} is no list of texts")
    texts = list(given)
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise UsageError(f"{what}: {wrong[0]!r} ({type(wrong[0]).__name__}) is no text")
    return texts


def lies_below(path: str) -> bool:
    """Whether a path is one below any folder that it is joined to, by its looks: links are not followed."""
    return not posixpath.isabs(path) and ".." not in path.split("/")


def check_files(who: str, of: str, root: str, files: Mapping[Any, Any]) -> None:
    """Files by their names, with what is in them; a name that ends in "/" is a folder.

    Raises: UsageError, beginning with ``who``; ``of`` is a word for all of them, ``root`` for where they lie.
    """
    for name, content in files.items():
        if not isinstance(name, str) or not name or not lies_below(name):
            raise UsageError(f"{who}: the {of}'s {name!r} is no path below {root}")
        if not name.endswith("/") and not isinstance(content, (str, bytes)):
            raise UsageError(f"{who}: what is in {name!r}, {content!r}, is neither text nor bytes")


def check_seconds(what: str, given: Any) -> float:
    """A number of seconds. Raises: UsageError, naming ``what``, for anything else, and for infinity."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real) or not math.isfinite(given):
        raise UsageError(f"{what}: {given!r} is no number of seconds")
    return float(given)


def check_command(what: str, command: Any) -> str | list[str]:
    """A command: a text for the shell, or a program and its arguments. Raises: UsageError."""
    if isinstance(command, str):
        return command
    if isinstance(command, Iterable) and not isinstance(command, bytes):
        words = [os.fspath(word) if isinstance(word, os.PathLike) else word for word in command]
        if words:
            return check_texts(what, words)
    raise UsageError(
        f"{what}: {command!r} is no command; write text for the shell, or a list: a program, its arguments"
    )


def check_environment(what: str, given: Any) -> dict[str, str] | None:
    """Variables and their values, None for none. Raises: UsageError unless they are texts."""
    if not given:
        return None
    if not isinstance(given, Mapping):
        raise UsageError(f"{what}: env={given!r} is no mapping of names to texts")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise UsageError(f"{what}: env has {name!r}: {value!r}; names and values are texts")
    return dict(given)
