"""The open files of a process that was forked and goes a way of its own."""

from __future__ import annotations

import os


def close_all_but(*kept: int) -> None:
    """Close all that is open but these and the standard streams.

    A forked process has to do that: the port to the host can be opened once only, and belongs to the
    conversation that it was forked from.
    """
    for name in os.listdir("/proc/self/fd"):
        handle = int(name)
        if handle > 2 and handle not in kept:
            try:
                os.close(handle)
            except OSError:
                continue  # the one that the listing itself had
