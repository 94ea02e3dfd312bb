"""Dying cgroups in the whole machine, and the time that reading a file takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_kernelfs.guest import dying, reading
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.stack import Resources

# Finding out what pins them takes up to 34 s more.
_GRACE_S = 60.0
# No more reads are begun after so long.
_MOST_S = 60.0


@dataclass(frozen=True)
class DyingCount:
    """The dying cgroups of one hierarchy: ``name`` is "v2" or "v1 memory", ``path`` where it is mounted.

    ``controllers`` says how many each controller keeps, if the kernel tells; ``before`` how many of ``dying``
    were so before the test.
    """

    path: str
    name: str
    dying: int
    controllers: Mapping[str, int]
    before: int = 0


@dataclass(frozen=True)
class Pins:
    """What keeps dying cgroups: how many went with a sync, or when a cache was dropped, and how many did not.

    ``zombies`` are processes that nobody waits for, in cgroups that were removed; ``memory`` is in bytes.
    """

    writeback: int
    page_cache: int
    dentries: int
    left: int
    zombies: int
    memory: Mapping[str, int]


@dataclass(frozen=True)
class DyingRun:
    """What was seen after ``seconds`` of waiting; ``pins`` only if there were too many."""

    seconds: float
    counts: tuple[DyingCount, ...]
    pins: Pins | None

    @property
    def total(self) -> int:
        """All that are dying since the test began."""
        return sum(count.dying for count in self.counts) - self.before

    @property
    def before(self) -> int:
        """How many were dying when the test began, and are yet."""
        return sum(count.before for count in self.counts)


def dying_at_rest(vm: VM) -> dict[str, int]:
    """How many are dying in each hierarchy, by its name; see ``guest.dying.at_rest``."""
    return dict(vm.guest(dying.at_rest, timeout=_GRACE_S))


def look_again(resources: Resources) -> None:
    """See whether some of those that were dying before the test have gone: they are not to hide its own."""
    known = resources.dying_before or {}
    if any(known.values()):
        now = dying_at_rest(resources.vm)
        resources.dying_before = {name: min(count, now.get(name, 0)) for name, count in known.items()}


def watch_dying(vm: VM, at_most: int, within: float, before: Mapping[str, int]) -> DyingRun:
    """Wait until at most so many are dying besides those of ``before``; see ``guest.dying.watch``."""
    raw = vm.guest(dying.watch, at_most, within, dict(before), timeout=within + _GRACE_S)
    pins = raw["pins"]
    return DyingRun(
        seconds=raw["seconds"],
        counts=tuple(DyingCount(**count) for count in raw["counts"]),
        pins=Pins(**pins) if pins else None,
    )


@dataclass(frozen=True)
class ReadRun:
    """Reads of one file, in order; ``size`` is how many bytes it had, ``dying`` are all dying cgroups."""

    path: str
    seconds: tuple[float, ...]
    size: int
    dying: int

    @property
    def measurement(self) -> Measurement:
        return Measurement.of(f"read {self.path}", "s", self.seconds)


def read_timed(vm: VM, path: str, repeat: int) -> ReadRun:
    """Read a file and measure; see ``guest.reading.read_timed``."""
    raw = vm.guest(reading.read_timed, path, repeat, _MOST_S, timeout=_MOST_S + 5 * _GRACE_S)
    return ReadRun(path, tuple(raw["seconds"]), raw["bytes"], raw["dying"])
