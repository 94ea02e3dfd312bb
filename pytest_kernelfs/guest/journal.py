"""What tests change through us on a machine that goes on after them, noted before it is done.

On a machine of our own there is no journal, and nothing is noted: it ends with its tests.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, List  # noqa: UP035  (Python 3.8)

Entry = List[Any]  # noqa: UP006   # a kind, and what is needed to undo it

_FORGET = "forget"
_handle = -1


def begin(path: str) -> None:
    """Note in that file from now on, here and in all processes that are forked."""
    global _handle
    _handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def is_kept() -> bool:
    """Whether this machine goes on after the tests, and others use it beside them."""
    return _handle >= 0


def note(kind: str, *what: Any) -> None:
    """Note that something is about to be changed. Raises: OSError if there is no room for a note."""
    if _handle >= 0:
        # It begins with the end of a line: the one before may have been cut short.
        line = f"\n{json.dumps([kind, *what])}\n".encode()
        if os.write(_handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forget(kind: str, first: Any) -> None:
    """Note that it is undone, so that another thing of the same name is not taken for it."""
    note(_FORGET, kind, first)


def entries(handle: int | None = None) -> list[Entry]:
    """All that was noted, in its order; of this machine's tests, or in another open journal."""
    source = _handle if handle is None else handle
    if source < 0:
        return []
    data = os.pread(source, os.fstat(source).st_size, 0)
    found: list[Entry] = []
    for line in data.decode().split("\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # empty, or cut short: what it was to announce was not done
        if entry[0] == _FORGET:
            found = [other for other in found if other[:2] != entry[1:]]
        else:
            found.append(entry)
    return found


def noted(kind: str) -> set[Any]:
    """The first detail of everything of that kind."""
    return {entry[1] for entry in entries() if entry[0] == kind}
