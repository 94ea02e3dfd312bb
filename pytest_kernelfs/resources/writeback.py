"""Dirty data: held back, forced out, and watched on its way to the disks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from pytest_kernelfs.arguments import check_seconds
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import meminfo, writeback
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.sampling import Sampled, sampling
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from pytest_kernelfs.sizes import Size, format_size, parse_size

# Of the memory that is available; what is left is for the test itself and for the pages' descriptions.
_DEFAULT_SHARE = 0.6
_MOST_SHARE = 0.8
_DEADLINE_S = 600.0
_HOUR_CENTISECS = 360_000


@dataclass(frozen=True)
class WritebackPhase:
    """What happened to dirty data in one phase.

    ``dirty`` and ``writeback`` are samples in bytes, with one at its begin and one at its end at least;
    ``written`` is disk -> bytes that reached it meanwhile (only disks that something reached).
    """

    name: str
    seconds: float
    dirty: Measurement
    writeback: Measurement
    written: dict[str, int]

    @property
    def measurements(self) -> list[Measurement]:
        """``dirty``, ``writeback``, and one for each disk that was written to, in bytes."""
        reached = [
            Measurement.of(f"{self.name}: written to {disk}", "B", [size])
            for disk, size in self.written.items()
        ]
        return [self.dirty, self.writeback, *reached]

    def __str__(self) -> str:
        written = ", ".join(f"{format_size(size)} to {disk}" for disk, size in self.written.items())
        return (
            f"{self.name}: {self.seconds:.3f} s, Dirty at most {format_size(self.dirty.max)}, "
            f"Writeback at most {format_size(self.writeback.max)}, written {written or 'nothing'}"
        )


@final
class WritebackWatch:
    """The phases of a watched block, by name; complete once the block has ended."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._sampled: Sampled | None = None
        self._marks: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.phases: list[WritebackPhase] = []

    def __repr__(self) -> str:
        return "\n".join(map(str, self.phases)) or "<no phases>"

    def __getitem__(self, name: str) -> WritebackPhase:
        """The phase of that name. Raises: UsageError if there is none, or the block has not ended."""
        for phase in self.phases:
            if phase.name == name:
                return phase
        known = ", ".join(phase.name for phase in self.phases) or "none before the block has ended"
        raise UsageError(f"writeback.watch: there is no phase {name!r}; phases: {known}")

    @property
    def measurements(self) -> list[Measurement]:
        """For each phase: Dirty, Writeback, and what was written to each disk, all in bytes."""
        return [measured for phase in self.phases for measured in phase.measurements]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Call what happens in this block ``name``. Raises: UsageError for a name that was given already."""
        if any(name == marked for marked, _, _ in self._marks):
            raise UsageError(f"writeback.watch: there is a phase {name!r} already")
        vm = self._resources.vm
        machine = vm.machine
        begin = vm.guest(writeback.snapshot)
        try:
            yield
        finally:
            if vm.is_still(machine):
                self._marks.append((name, begin, vm.guest(writeback.snapshot)))

    def _finish(self) -> None:
        sampled = self._sampled
        if sampled is None or not sampled.complete:
            return
        for name, begin, end in self._marks:
            self.phases.append(
                WritebackPhase(
                    name=name,
                    seconds=end["time"] - begin["time"],
                    dirty=_between(sampled, name, "Dirty", begin, end),
                    writeback=_between(sampled, name, "Writeback", begin, end),
                    written=_grown(begin["written"], end["written"]),
                )
            )
        if self._resources.record is not None:
            for measured in self.measurements:
                self._resources.record(measured)


@final
class Writeback:
    """Dirty data of the machine: the ``writeback`` fixture."""

    def __init__(self, resources: Resources, sysctl: Sysctl) -> None:
        self.resources = resources
        self._sysctl = sysctl

    def hold(self, limit: Size | None = None) -> int:
        """Keep the kernel from writing dirty data back by itself, until the test ends; gives the limit.

        No periodic writeback, no data grows too old, and background writeback begins only at ``limit``
        (by default 60 % of the memory that is available now); a writer is not slowed down before that either.
        sync(2), fsync(2) and umount still write, and so do file systems that commit on a clock of their own
        (btrfs every 30 s, ext4's journal every 5 s).

        Raises: UsageError for a limit of more than 80 % of the available memory: the kernel would run out of
        it; a machine that is started for the test has more with the marker vm(memory="2G").
        """
        vm = self.resources.vm
        available: int = vm.guest(meminfo.read, "MemAvailable")["MemAvailable"]
        most = int(available * _MOST_SHARE)
        size = (
            int(available * _DEFAULT_SHARE) if limit is None else parse_size(limit, "writeback.hold: limit")
        )
        if not 0 < size <= most:
            raise UsageError(
                f"writeback.hold: {format_size(size)} cannot be held dirty with {format_size(available)} of "
                f"memory available, at most {format_size(most)}; a machine that is started for the test has "
                "more with the marker vm(memory='4G')"
            )
        self._sysctl.update(
            {
                "vm.dirty_writeback_centisecs": 0,
                "vm.dirty_expire_centisecs": _HOUR_CENTISECS,
                # The kernel halves the background limit unless it is the lower of the two.
                "vm.dirty_bytes": size + size // 4,
                "vm.dirty_background_bytes": size,
            }
        )
        # With an interval of 0 the first dirty inode of a device wakes its flusher at once, and a device
        # that has written nothing lately has no share of the background limit: it would be flushed. From 0
        # to anything else wakes all flushers now, and none is due before an hour has passed.
        self._sysctl.set("vm.dirty_writeback_centisecs", _HOUR_CENTISECS)
        return size

    def force(self) -> float:
        """Write all dirty data of the machine back: sync(2). Gives the seconds it took."""
        return float(self.resources.vm.guest(writeback.force, timeout=_DEADLINE_S))

    def dirty(self) -> int:
        """The bytes that are dirty now and not yet being written."""
        return int(self.resources.vm.guest(meminfo.read, "Dirty")["Dirty"])

    def settle(self, *, at_most: Size = "256K", timeout: float = 60.0) -> float:
        """Wait until no more than ``at_most`` bytes are dirty or being written; gives the seconds it took.

        Nothing is forced: what is held stays dirty.

        Raises: AssertionError if it takes longer than ``timeout`` seconds.
        """
        __tracebackhide__ = True
        limit = parse_size(at_most, "writeback.settle: at_most")
        timeout = check_seconds("writeback.settle: timeout", timeout)
        done = self.resources.vm.guest(writeback.settle, limit, timeout, timeout=timeout + 30.0)
        if done["left"] > limit:
            raise AssertionError(
                f"{format_size(done['left'])} are still dirty or being written after {timeout:g} s, more "
                f"than {format_size(limit)} (kernel {self.resources.vm.kernel.version}); writeback.force() "
                "writes them, assert_no_dstate() tells whether a writer is stuck"
            )
        return float(done["seconds"])

    @contextmanager
    def watch(self, *, interval: float = 0.05) -> Iterator[WritebackWatch]:
        """Watch Dirty, Writeback and what reaches the disks, in phases that the block names.

        Its measurements are kept with the test's report. Raises: UsageError.
        """
        watch = WritebackWatch(self.resources)
        try:
            with sampling(self.resources, ("meminfo",), interval=interval, record=False) as sampled:
                watch._sampled = sampled
                yield watch
        finally:
            watch._finish()


def _between(
    sampled: Sampled, phase: str, series: str, begin: dict[str, Any], end: dict[str, Any]
) -> Measurement:
    inside = [
        value
        for seconds, value in sampled.points(series)
        if begin["time"] < seconds + sampled.start < end["time"]
    ]
    return Measurement.of(f"{phase}: {series}", "B", [begin[series], *inside, end[series]])


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    grown = {disk: size - before.get(disk, 0) for disk, size in after.items()}
    return {disk: size for disk, size in grown.items() if size > 0}
