"""The kernel's log, read record by record from /dev/kmsg."""

from __future__ import annotations

import os
from typing import Any


def cursor() -> int:
    """The sequence number of the next record."""
    records = _records(0, last_only=True)
    return int(records[-1]["seq"]) + 1 if records else 0


def read(since: int = 0) -> list[dict[str, Any]]:
    """All records from ``since`` on: dicts with ``seq``, ``level``, ``seconds`` (since boot) and ``text``."""
    return _records(since)


def mark(text: str) -> int:
    """Write a line into the log; gives the sequence number to read from."""
    now = cursor()
    with open("/dev/kmsg", "w") as file:
        file.write(text)
    return now


def _records(since: int, last_only: bool = False) -> list[dict[str, Any]]:
    handle = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    found: list[dict[str, Any]] = []
    try:
        while True:
            try:
                raw = os.read(handle, 16384)
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # records were overwritten while we read; go on with the oldest there is
            record = _parse(raw.decode("utf-8", "replace"))
            if last_only:
                found = [record]
            elif record["seq"] >= since:
                found.append(record)
    finally:
        os.close(handle)


def _parse(raw: str) -> dict[str, Any]:
    head, _, text = raw.partition(";")
    priority, seq, microseconds = head.split(",")[:3]
    return {
        "seq": int(seq),
        "level": int(priority) & 7,
        "seconds": int(microseconds) / 1e6,
        "text": text.split("\n", 1)[0],
    }
