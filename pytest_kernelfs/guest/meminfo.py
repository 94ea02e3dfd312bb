"""/proc/meminfo, read once or watched over time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BESIDE_EVERY = 4
# The same in memory.stat of a cgroup: version 2, version 1.
_OF_CGROUPS = {"Dirty": ("file_dirty", "total_dirty"), "Writeback": ("file_writeback", "total_writeback")}

_account = ""


def count_in(path: str) -> None:
    """Take Dirty and Writeback from that memory.stat, which is of the tests alone, not of all the machine."""
    global _account
    _account = path


def read(*names: str) -> dict[str, int]:
    """The named lines of /proc/meminfo (all without names), in bytes."""
    values = {}
    with open("/proc/meminfo") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if not names or name in names:
                number, _, unit = rest.strip().partition(" ")
                values[name] = int(number) * (1024 if unit == "kB" else 1)
    if _account and ("Dirty" in values or "Writeback" in values):
        _count_own(values)
    return values


def _count_own(values: dict[str, int]) -> None:
    with open(_account) as file:
        own = dict(line.split() for line in file)
    for name, keys in _OF_CGROUPS.items():
        for key in keys:
            if name in values and key in own:
                values[name] = int(own[key])


class Watch:
    """Samples Dirty and Writeback in a thread until its block ends.

    ``samples`` is a list of (seconds, dirty, writeback), in bytes. ``beside`` is called in the same
    thread, at every fourth sample.
    """

    def __init__(self, interval: float = 0.02, beside: Callable[[], None] | None = None) -> None:
        self.samples: list[tuple[float, int, int]] = []
        self._interval = interval
        self._beside = beside
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._start = time.monotonic()
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()
            if self._beside is not None and len(self.samples) % _BESIDE_EVERY == 0:
                self._beside()

    def _sample(self) -> None:
        now = read("Dirty", "Writeback")
        self.samples.append((time.monotonic() - self._start, now["Dirty"], now["Writeback"]))
