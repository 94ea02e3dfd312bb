"""Unmounts within a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.umount import UmountRun, Unmountable, umount_timed
from pytest_kernelfs.sizes import format_size

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

    Raises: AssertionError if one was slower or could not be unmounted; UsageError without mounts.
    """
    __tracebackhide__ = True
    if not mounts:
        raise UsageError(
            "assert_umount_under: there is nothing to unmount; mount something first, or name it"
        )
    if seconds <= 0:
        raise UsageError(f"assert_umount_under: a budget of {seconds} s cannot be met")
    run = umount_timed(vm, mounts, parallel)
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
    for path, value, error in zip(run.paths, run.seconds, run.errors, strict=True):
        note = f"  {error}" if error else "  over budget" if value > budget else ""
        lines.append(f"  {path:<20} {value:8.3f} s{note}")
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
    return "\n".join(lines)
