"""Unmount times, with what was written back meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.guest import mounts
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement

# What is slow is to be measured, not given up: a round may take ten times its budgets, within these bounds.
_SHORTEST_S = 60.0
_LONGEST_S = 600.0


class Unmountable(Protocol):
    """What can be unmounted: ``path`` is where it is, ``backing`` lies on what it writes back to."""

    path: str
    backing: str

    def forget(self) -> None:
        """Told once it is unmounted."""


@dataclass(frozen=True)
class UmountRun:
    """One measured round of unmounts.

    ``seconds`` and ``errors`` ("" for none) are in the order of ``paths``; ``written`` is device -> bytes;
    ``dirty`` and ``writeback`` are samples in bytes, the first before and the last after. ``waited`` tells
    for each path in which function of the kernel its umount was seen most, and ``holders`` who kept it busy.
    """

    parallel: bool
    paths: tuple[str, ...]
    seconds: tuple[float, ...]
    errors: tuple[str, ...]
    written: dict[str, int]
    dirty: tuple[int, ...]
    writeback: tuple[int, ...]
    waited: tuple[str, ...] = ()
    holders: tuple[tuple[str, ...], ...] = ()

    @property
    def measurement(self) -> Measurement:
        return Measurement.of("umount", "s", self.seconds)


def deadline(budget: float, count: int) -> float:
    """How long a round of ``count`` umounts is waited for, in seconds: longer than it may take."""
    allowed = budget * count
    return min(max(_SHORTEST_S, 10 * allowed), max(_LONGEST_S, allowed + _SHORTEST_S))


def umount_timed(vm: VM, targets: Sequence[Unmountable], parallel: bool, budget: float) -> UmountRun:
    """Unmount and measure; see ``guest.mounts.umount_timed``. ``budget`` is what each may take, in seconds.

    Raises: GuestTimeout if one hangs.
    """
    paths = [target.path for target in targets]
    backing = [target.backing for target in targets]
    limit = deadline(budget, len(paths))
    try:
        raw = vm.guest(mounts.umount_timed, paths, backing, parallel, timeout=limit)
    except GuestTimeout:
        raise GuestTimeout(_hung(paths, parallel, budget, limit, str(vm.kernel.version))) from None
    for target, error in zip(targets, raw["errors"], strict=True):
        if not error:
            target.forget()
    return UmountRun(
        parallel=parallel,
        paths=tuple(paths),
        seconds=tuple(raw["seconds"]),
        errors=tuple(raw["errors"]),
        written=dict(raw["written"]),
        dirty=tuple(sample[1] for sample in raw["watch"]),
        writeback=tuple(sample[2] for sample in raw["watch"]),
        waited=tuple(_waited(most) for most in raw["waited"]),
        holders=tuple(tuple(found) for found in raw["holders"]),
    )


def _hung(paths: Sequence[str], parallel: bool, budget: float, limit: float, kernel: str) -> str:
    many = len(paths) > 1
    what = f"{len(paths)} mounts had not all" if many else "1 mount had not"
    each = f" each, {'at once' if parallel else 'one after another'}" if many else ""
    return (
        f"{what} been unmounted after {limit:g} s (budget {budget:g} s{each}, kernel {kernel}): "
        f"{', '.join(paths)}\n"
        "  a umount hangs in the kernel, and with it the machine's answers. Where it waits is told by the "
        'artifacts of this test, in blocked-tasks.txt and sysrq-w.txt, and within the test by vm.sysrq("w")'
    )


def _waited(most: Mapping[str, Any]) -> str:
    if not most:
        return ""
    callers = f", called by {' < '.join(most['callers'])}" if most["callers"] else ""
    return f"in {most['place']} ({most['times']} of {most['looks']} looks{callers})"
