"""Unmounts within a budget."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from pytest_kernelfs.arguments import check_seconds
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.umount import UmountRun, Unmountable, umount_timed
from pytest_kernelfs.sizes import format_size

# Below this, what is written says nothing of a disk's speed.
_MUCH = 1 << 20

Record = Callable[[Measurement], None]


def umount_under(
    vm: VM,
    seconds: float,
    mounts: Sequence[Unmountable],
    *,
    parallel: bool = False,
    record: Record | None = None,
) -> UmountRun:
    """Unmount all ``mounts``, one after another or at once, and demand that each takes at most ``seconds``.

    Times are taken in the guest around umount2(2). Gives all that was measured. ``record`` is told the
    times, also of a failure.

    Raises: AssertionError if one was slower or could not be unmounted; UsageError without mounts;
    GuestTimeout if one hangs.
    """
    __tracebackhide__ = True
    if not mounts:
        raise UsageError(
            "assert_umount_under: there is nothing to unmount; mount something first, or name it"
        )
    seconds = check_seconds("assert_umount_under", seconds)
    if seconds <= 0:
        raise UsageError(f"assert_umount_under: a budget of {seconds} s cannot be met")
    run = umount_timed(vm, mounts, parallel, seconds)
    if record is not None:
        record(run.measurement)
    if any(run.errors) or run.measurement.max > seconds:
        raise AssertionError(describe_umounts(run, seconds, str(vm.kernel.version)))
    return run


def describe_umounts(run: UmountRun, budget: float, kernel: str) -> str:
    """The failure text of a round of unmounts."""
    failed = sum(bool(error) for error in run.errors)
    slow = sum(value > budget for value in run.seconds)
    how = "unmounted at once" if run.parallel else "unmounted one after another"
    parts = []
    if slow:
        worst = max(run.seconds)
        parts.append(
            f"{slow} of {len(run.paths)} umounts took longer than {budget:g} s, at most {worst:.3f} s"
        )
    if failed:
        parts.append(f"{failed} of {len(run.paths)} umounts failed")
    lines = [f"{' and '.join(parts)} ({how}, kernel {kernel})"]
    for index, (path, value, error) in enumerate(zip(run.paths, run.seconds, run.errors, strict=True)):
        note = f"  {_why(error)}{_held(run, index)}" if error else "  over budget" if value > budget else ""
        lines.append(f"  {path:<20} {value:8.3f} s{note}")
    if slow:
        lines += _slowest(run)
    lines += [
        f"  written to {device} meanwhile: {format_size(count)}" for device, count in run.written.items()
    ]
    if not run.written:
        lines.append("  there is no disk below: nothing counts what was written")
    for name, samples in (("Dirty", run.dirty), ("Writeback", run.writeback)):
        lines.append(
            f"  {name}: {format_size(samples[0])} before, {format_size(samples[-1])} after, "
            f"at most {format_size(max(samples))}"
        )
    if slow:
        lines += _advice(run)
    return "\n".join(lines)


def _why(error: str) -> str:
    """EINVAL of umount2(2) has this meaning for a folder that is there."""
    return f"{error}: nothing is mounted there" if error == os.strerror(errno.EINVAL) else error


def _held(run: UmountRun, index: int) -> str:
    """Who keeps it; nothing for an error that comes of something else."""
    found = run.holders[index] if run.holders else ()
    return f": held by {', '.join(found)}" if found else ""


def _slowest(run: UmountRun) -> list[str]:
    """Where the slowest umount waited."""
    index = run.seconds.index(max(run.seconds))
    if not run.waited or not run.waited[index]:
        return []
    return [f"  the umount of {run.paths[index]} waited mostly {run.waited[index]}"]


def _advice(run: UmountRun) -> list[str]:
    """What the numbers show, if they show something."""
    if not run.written:
        return []
    written = sum(run.written.values())
    dirty = run.dirty[0] + run.writeback[0]
    longest = sum(run.seconds) if not run.parallel else max(run.seconds)
    if written >= _MUCH and written >= dirty / 2:
        rate = f"{format_size(written)} in {longest:.3f} s, {format_size(int(written / longest))}/s"
        if written <= 2 * dirty:
            return [
                f"  about as much was written as was dirty ({rate}): the umount waited for the disk. Sync "
                "before it to see what it takes by itself, or give the disk more speed"
            ]
        return [
            f"  more was written than was dirty ({rate}): look at who else writes to this disk, and at the "
            "file system's own log"
        ]
    if written < _MUCH:
        return [
            "  hardly anything was written: it was not the amount of data that took so long. Look at where "
            "it waited, at slow flushes of the disk, and at how busy the machine and its host are"
        ]
    return []
