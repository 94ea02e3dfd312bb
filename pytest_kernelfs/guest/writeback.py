"""Dirty data: how much there is, how much reached the disks, and waiting until it has."""

from __future__ import annotations

import os
import time
from typing import Any

from pytest_kernelfs.guest import meminfo
from pytest_kernelfs.guest.patience import Patience

_POLL_S = 0.02
_SECTOR = 512


def snapshot() -> dict[str, Any]:
    """``time`` (CLOCK_MONOTONIC), ``Dirty`` and ``Writeback`` in bytes, ``written``: disk -> bytes so far."""
    return {"time": time.monotonic(), **meminfo.read("Dirty", "Writeback"), "written": _written()}


def _written() -> dict[str, int]:
    with open("/proc/diskstats") as file:
        lines = [line.split() for line in file]
    # Fields of a line: numbers and name of the device, then 7th in all the sectors written.
    return {
        line[2]: int(line[9]) * _SECTOR
        for line in lines
        if int(line[9]) and os.path.exists("/sys/block/" + line[2])
    }


def force() -> float:
    """sync(2): write all dirty data of the machine back; gives the seconds it took."""
    start = time.monotonic()
    os.sync()
    return time.monotonic() - start


def settle(at_most: int, timeout: float) -> dict[str, Any]:
    """Wait until no more than ``at_most`` bytes are dirty or being written.

    Gives ``left`` (the bytes that are) and ``seconds``.
    """
    waiting = Patience(timeout, _POLL_S)
    start = time.monotonic()
    while True:
        left = sum(meminfo.read("Dirty", "Writeback").values())
        seconds = time.monotonic() - start
        if left <= at_most or not waiting.wait():
            return {"left": left, "seconds": seconds}
