"""SysRq keys on a machine whose console is not ours: pressed in /proc, heard in the kernel's log."""

from __future__ import annotations

import os
import time

from pytest_kernelfs.guest import kmsg
from pytest_kernelfs.guest.patience import Patience

_TRIGGER = "/proc/sysrq-trigger"
# What a key has the processors print, they print from interrupts and kernel threads, a moment later.
_QUIET_S = 0.2
_MOST_S = 10.0
_POLL_S = 0.005


def press(keys: str) -> tuple[str | None, str]:
    """What the kernel printed, and ""; or None, and why no key can be pressed."""
    log = kmsg.open_at_end()
    try:
        for key in keys:
            try:
                with open(_TRIGGER, "w") as trigger:
                    trigger.write(key)
            except OSError as error:
                return None, f"has no sysrq keys ({_TRIGGER}: {error.strerror})"
        return "\n".join(_heard(log)), ""
    finally:
        os.close(log)


def _heard(log: int) -> list[str]:
    lines: list[str] = []
    start = time.monotonic()
    # While the machine stands still, all of it is quiet.
    quiet = Patience(_QUIET_S, _POLL_S)
    while True:
        more = kmsg.read_from(log)
        lines += [f"[{record['seconds']:12.6f}] {record['text']}" for record in more]
        if more and time.monotonic() - start < _MOST_S:
            quiet = Patience(_QUIET_S, _POLL_S)
        if not quiet.wait():
            return lines
