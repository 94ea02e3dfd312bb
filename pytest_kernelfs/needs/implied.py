"""Needs that nobody has to write: those of what a test's parameters choose."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.fixtures import storage
from pytest_kernelfs.needs.items import MARKER
from pytest_kernelfs.resources.storage import names

_FIXTURE = "storage_backend"


def add_implied(item: pytest.Item) -> None:
    """Have a test of a storage backend need what that is made of.

    Raises: UsageError for a backend that does not exist.
    """
    if not isinstance(item, pytest.Function) or not _chooses_ours(item):
        return
    try:
        needed = names.needs(item.callspec.params[_FIXTURE])
    except UsageError as error:
        raise UsageError(f"{item.nodeid}: {error}") from None
    item.add_marker(getattr(pytest.mark, MARKER)(*needed))


def _chooses_ours(item: pytest.Function) -> bool:
    """Whether a parameter is for our fixture, not for one of the test's own of that name."""
    callspec = getattr(item, "callspec", None)
    definitions = item._fixtureinfo.name2fixturedefs.get(_FIXTURE, ())
    ours = bool(definitions) and definitions[-1].func.__module__ == storage.__name__
    return ours and callspec is not None and _FIXTURE in callspec.params
