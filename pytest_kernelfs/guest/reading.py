"""Reading a file under the stopwatch."""

from __future__ import annotations

import os
import time
from typing import Any

from pytest_kernelfs.guest import dying
from pytest_kernelfs.guest.dispatch import GuestError

_CHUNK = 1 << 16


def read_timed(path: str, repeat: int, most_seconds: float) -> dict[str, Any]:
    """Read a whole file ``repeat`` times, each timed with CLOCK_MONOTONIC from before open(2) to its end.

    No read is begun after ``most_seconds`` in all. Gives a dict: ``seconds`` (a list), ``bytes`` (of the last
    read), ``dying`` (dying cgroups of the machine). Raises: GuestError.
    """
    begin = time.monotonic()
    seconds: list[float] = []
    size = 0
    while len(seconds) < repeat and (not seconds or time.monotonic() - begin < most_seconds):
        start = time.monotonic()
        try:
            size = _read(path)
        except OSError as error:
            raise GuestError(f"cannot read {path}: {error.strerror}") from None
        seconds.append(time.monotonic() - start)
    return {"seconds": seconds, "bytes": size, "dying": dying.total()}


def _read(path: str) -> int:
    size = 0
    handle = os.open(path, os.O_RDONLY)
    try:
        while True:
            part = len(os.read(handle, _CHUNK))
            size += part
            if not part:
                return size
    finally:
        os.close(handle)
