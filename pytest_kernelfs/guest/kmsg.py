"""The kernel's log, read record by record from /dev/kmsg."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any


def mark(text: str) -> int:
    """Write a line into the log; gives its sequence number, to read from."""
    handle = open_at_end()
    try:
        write(text)
        return int(read_from(handle, 1)[0]["seq"])
    finally:
        os.close(handle)


def write(text: str) -> None:
    """Write a line into the log, for information: it does not reach the serial console, which is slow."""
    handle = os.open("/dev/kmsg", os.O_WRONLY)
    try:
        # Without the line's end the kernel waits for more, and shows the record to nobody.
        os.write(handle, f"<6>{text}\n".encode())
    finally:
        os.close(handle)


def read(since: int = 0) -> list[dict[str, Any]]:
    """All records from ``since`` on: dicts with ``seq``, ``level``, ``seconds`` (since boot) and ``text``."""
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return [record for record in read_from(handle) if record["seq"] >= since]
    finally:
        os.close(handle)


def open_at_end() -> int:
    """The log, opened so that what is logged from now on can be read with ``read_from``; to be closed."""
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(handle, 0, os.SEEK_END)
    return handle


def read_from(handle: int, most: int = 1 << 30) -> list[dict[str, Any]]:
    """The records that an open log still has to give, at most so many."""
    found: list[dict[str, Any]] = []
    while len(found) < most:
        try:
            raw = os.read(handle, 16384)
        except BlockingIOError:
            break
        except BrokenPipeError:
            continue  # records were overwritten while we read; go on with the oldest there is
        found.append(_parse(raw.decode("utf-8", "replace")))
    return found


def heard(handle: int, before: Sequence[str] = ()) -> str:
    """What an open log tells of a refusal, in words, behind what the kernel said elsewhere."""
    said = [*before, *(record["text"] for record in read_from(handle)[-4:])]
    return f"the kernel said: {' | '.join(said)}" if said else "the kernel logged nothing about it"


def _parse(raw: str) -> dict[str, Any]:
    head, _, text = raw.partition(";")
    priority, seq, microseconds = head.split(",")[:3]
    return {
        "seq": int(seq),
        "level": int(priority) & 7,
        "seconds": int(microseconds) / 1e6,
        "text": text.split("\n", 1)[0],
    }
