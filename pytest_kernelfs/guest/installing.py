"""Programs of the host that were brought into this machine, apart from its own."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Dict, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import files, journal, sharing
from pytest_kernelfs.guest.dispatch import GuestError

PLACE = "/run/kernelfs/installed"
# First on the PATH of all that runs for tests.
BIN = PLACE + "/bin"
_COMPLETE = "complete"
# A program's or library's build number lies at its start: two that agree there, and in length, are the same.
HEAD = 4096

Head = Tuple[int, str]  # noqa: UP006   # length, checksum of the start


def head(path: str) -> Head:
    """What tells this file from others."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.sha256(file.read(HEAD)).hexdigest()


def heads(paths: list[str]) -> Dict[str, Head]:  # noqa: UP006
    """Those of the files that are there."""
    there = {}
    for path in paths:
        try:
            there[path] = head(path)
        except OSError:
            continue
    return there


def machine() -> str:
    """The processor that this machine's programs are for."""
    return os.uname().machine


def begin(name: str, size: int) -> bool:
    """Make room for what is to be installed as ``name``; False if it is there already.

    Raises: GuestError if the machine has too little memory.
    """
    folder = f"{PLACE}/{name}"
    if os.path.exists(f"{folder}/{_COMPLETE}"):
        return False
    sharing.make_room(folder, size)
    return True


def finish(name: str, program: str, target: str, wrapper: str) -> None:
    """Have a program that was put into the folder of ``name`` be started as ``target``.

    ``wrapper`` is the script that starts it, "" if it starts by itself.
    Raises: GuestError if something else is there.
    """
    folder = f"{PLACE}/{name}"
    start = f"{folder}/{program}"
    if wrapper:
        start = f"{folder}/start"
        files.put(start, wrapper.encode(), 0o755)
    files.put(f"{folder}/{_COMPLETE}", b"")
    _check_free(target)
    if not target.startswith(PLACE + "/"):
        sharing.lead_to(target)
        journal.note("link", target)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    fresh = f"{target}.{name}"
    os.symlink(start, fresh)
    os.rename(fresh, target)


def _check_free(target: str) -> None:
    """Only what was installed before may be replaced."""
    ours = os.path.islink(target) and os.readlink(target).startswith(PLACE + "/")
    if os.path.lexists(target) and not ours:
        raise GuestError(
            f"{target} is there already in this machine, and is left as it is; install under another path, "
            f"or without one: what is in {BIN} comes first on the PATH"
        )


def which(name: str) -> bool:
    """Whether there is a program of that name or path."""
    return shutil.which(name) is not None
