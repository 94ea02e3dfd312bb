"""What the sampler looks at: memory, pressure, disks, the run queues, tasks in state D.

A source's ``sample(now)`` gives (series, unit, value); ``now`` is CLOCK_MONOTONIC. What counts upwards is
told as a rate since the sample before, and ``grown`` holds by how much it grew altogether.
"""

from __future__ import annotations

import os
from typing import Any, List, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import meminfo, psi, tasks
from pytest_kernelfs.guest.dispatch import GuestError

Values = List[Tuple[str, str, float]]  # noqa: UP006

_MEMINFO = (
    *("MemFree", "MemAvailable", "Cached", "Dirty", "Writeback", "AnonPages"),
    *("Shmem", "Slab", "SReclaimable", "SUnreclaim", "KernelStack", "Percpu"),
)
_SECTOR = 512


class Source:
    """One probe's view of the machine."""

    def __init__(self, least: float) -> None:
        """No rate is told of less than ``least`` seconds: it would be all noise."""
        self.grown: dict[str, float] = {}
        self._least = least
        self._last: dict[str, float] = {}
        self._at = 0.0

    def sample(self, now: float) -> Values:
        raise NotImplementedError

    def _elapsed(self, now: float) -> float:
        """Seconds since the sample before; 0 for the first."""
        elapsed = now - self._at if self._at else 0.0
        self._at = now
        return elapsed

    def _step(self, series: str, value: float) -> float:
        """What a counter grew by since the last sample; one that begins anew has grown by nothing."""
        step = max(value - self._last.get(series, value), 0.0)
        self._last[series] = value
        self.grown[series] = self.grown.get(series, 0.0) + step
        return step

    def _rate(self, series: str, unit: str, value: float, elapsed: float, factor: float = 1.0) -> Values:
        step = self._step(series, value)
        return [(series, unit, factor * step / elapsed)] if elapsed >= self._least else []


class Meminfo(Source):
    def sample(self, now: float) -> Values:  # noqa: ARG002
        return [(name, "B", value) for name, value in meminfo.read(*_MEMINFO).items()]


class Psi(Source):
    """The share of the time in which some, or all, tasks that could work waited."""

    def sample(self, now: float) -> Values:
        elapsed = self._elapsed(now)
        found: Values = []
        for resource in psi.RESOURCES:
            for kind, figures in psi.read(resource).items():
                found += self._rate(f"{resource}.{kind}", "%", figures["total"], elapsed, 100.0)
        # The kernel brings its account up to date now and then: what it adds at once may be older.
        return [(name, unit, min(value, 100.0)) for name, unit, value in found]


class DiskIo(Source):
    """Whole disks; loop and RAM devices only from their first request on."""

    def __init__(self, least: float) -> None:
        super().__init__(least)
        self._is_disk: dict[str, bool] = {}

    def sample(self, now: float) -> Values:
        elapsed = self._elapsed(now)
        found: Values = []
        with open("/proc/diskstats") as file:
            for line in file:
                _, _, name, *rest = line.split()
                if self._known(name):
                    reads, _, read, _, writes, _, written, _, in_flight = map(int, rest[:9])
                    values = self._rate(f"{name}.read", "B/s", read * _SECTOR, elapsed)
                    values += self._rate(f"{name}.written", "B/s", written * _SECTOR, elapsed)
                    values += self._rate(f"{name}.iops", "1/s", reads + writes, elapsed)
                    values.append((f"{name}.in_flight", "requests", in_flight))
                    if reads or writes or in_flight or not name.startswith(("loop", "ram", "zram")):
                        found += values
        return found

    def _known(self, name: str) -> bool:
        if name not in self._is_disk:
            self._is_disk[name] = os.path.exists("/sys/block/" + name)
        return self._is_disk[name]


class RunQueue(Source):
    """How many tasks wait for a processor, and for how long on the average of their turns."""

    def sample(self, now: float) -> Values:
        elapsed = self._elapsed(now)
        waited, turns = _schedstat()
        step, turns = self._step("run_queue.waiting", waited), self._step("run_queue.turns", turns)
        if elapsed < self._least:
            return []
        return [
            ("run_queue.waiting", "tasks", step / elapsed),
            ("run_queue.wait_per_turn", "ms", 1000 * step / turns if turns else 0.0),
        ]


def _schedstat() -> tuple[float, float]:
    """Seconds that tasks waited for a processor since the boot, and how often one was given a processor."""
    waited = turns = 0
    try:
        with open("/proc/schedstat") as file:
            for line in file:
                if line.startswith("cpu"):
                    fields = line.split()
                    waited += int(fields[8])
                    turns += int(fields[9])
    except OSError as error:
        raise GuestError(
            f"the probe run_queue reads /proc/schedstat, which this kernel lacks ({error.strerror}): "
            "it needs CONFIG_SCHEDSTATS=y"
        ) from None
    return waited / 1e9, turns


class Dstate(Source):
    """Tasks in uninterruptible sleep, without those of the kernel unless asked for."""

    def __init__(self, least: float, stuck_after: float, kernel_threads: bool) -> None:
        super().__init__(least)
        self._watch = tasks.Watch(stuck_after, kernel_threads, step=least)

    def sample(self, now: float) -> Values:
        count, longest = self._watch.look(now)
        return [("dstate", "tasks", count), ("dstate.longest", "ms", 1000 * longest)]

    @property
    def stuck(self) -> list[dict[str, Any]]:
        return self._watch.stuck

    @property
    def not_described(self) -> int:
        return self._watch.not_described


def make(names: list[str], least: float, stuck_after: float, kernel_threads: bool) -> list[Source]:
    """The sources of the named probes."""
    simple = {"meminfo": Meminfo, "psi": Psi, "disk_io": DiskIo, "run_queue": RunQueue}
    return [
        Dstate(least, stuck_after, kernel_threads) if name == "dstate" else simple[name](least)
        for name in names
    ]
