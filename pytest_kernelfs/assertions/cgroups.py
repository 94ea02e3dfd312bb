"""No dying cgroups, and files that are read within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.cgroups import DyingRun, Pins, ReadRun, read_timed, watch_dying
from pytest_kernelfs.sizes import format_size

# The kernel's own selftest waits so long for dying cgroups to go.
WITHIN_S = 8.0
REPEAT = 20


def no_dying_cgroups(
    vm: VM,
    *,
    at_most: int = 0,
    within: float = WITHIN_S,
    before: Mapping[str, int] | None = None,
    record: Callable[[Measurement], None] | None = None,
) -> DyingRun:
    """Demand that of all removed cgroups of the machine, at most so many are still kept by the kernel.

    Waits ``within`` seconds for them to go; gives what was seen. If there are more, the machine is synced and
    its caches are dropped, to find out what keeps them. So many of each hierarchy, by its name, as were dying
    ``before`` are left out. ``record`` is told how many were left.

    Raises: AssertionError, UsageError.
    """
    __tracebackhide__ = True
    if at_most < 0 or within < 0:
        raise UsageError(
            f"assert_no_dying_cgroups: at_most ({at_most}) and within ({within} s) cannot be below 0"
        )
    run = watch_dying(vm, at_most, within, before or {})
    if record is not None:
        record(Measurement.of("dying cgroups", "cgroups", [run.total]))
    if run.total > at_most:
        raise AssertionError(describe_dying(run, at_most, str(vm.kernel.version)))
    return run


def describe_dying(run: DyingRun, at_most: int, kernel: str) -> str:
    """The failure text of dying cgroups."""
    noun = "cgroup is" if run.total == 1 else "cgroups are"
    lines = [
        f"{run.total} {noun} still dying after {run.seconds:.1f} s: removed, but kept by the kernel "
        f"({at_most} allowed, kernel {kernel})"
    ]
    for count in run.counts:
        kept = ", ".join(f"{name} {number}" for name, number in sorted(count.controllers.items()))
        told = f" (kept by controller: {kept})" if kept else ""
        since = f", {count.before} of them since before the test" if count.before else ""
        lines.append(f"  {count.name} at {count.path}: {count.dying} dying{since}{told}")
    if run.before:
        lines.append(
            f"  {run.before} were there before the test, of earlier ones or of others on the machine; they "
            "do not count, but cannot be told from the test's own in what follows"
        )
    if run.pins is not None:
        lines += [f"  {line}" for line in _describe_pins(run.pins)]
    return "\n".join(lines)


def _describe_pins(pins: Pins) -> list[str]:
    lines = []
    if pins.writeback:
        lines.append(
            f"writeback kept {pins.writeback}: they went with a sync; what was written lately stays on its "
            "cgroup's list of dirty files, also after fsync(2)"
        )
    if pins.page_cache:
        lines.append(
            f'page cache kept {pins.page_cache}: they went with "echo 1 > /proc/sys/vm/drop_caches"; so '
            "they do when the files are removed, or memory runs short"
        )
    if pins.dentries:
        lines.append(
            f'dentries and inodes kept {pins.dentries}: they went with "echo 2 > /proc/sys/vm/drop_caches"'
        )
    if pins.left:
        memory = pins.memory
        swapped = memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)
        lines.append(
            f"{pins.left} stayed when all caches were dropped: look for files on tmpfs and shared memory "
            f"({format_size(memory.get('Shmem', 0))}), swapped pages ({format_size(swapped)}), locked pages "
            f"({format_size(memory.get('Mlocked', 0))}), dirty pages ({format_size(memory.get('Dirty', 0))})"
        )
        if pins.zombies:
            lines.append(
                f"{pins.zombies} processes of removed cgroups have ended, but their parents have not waited "
                "for them (zombies): each keeps its cgroup"
            )
    lines.append("to find this out, the machine's file systems were synced and its caches dropped just now")
    return lines


def read_under(
    vm: VM,
    path: str,
    seconds: float,
    *,
    repeat: int = REPEAT,
    record: Callable[[Measurement], None] | None = None,
) -> ReadRun:
    """Read a file ``repeat`` times and demand that no read takes longer than ``seconds``.

    Times are taken in the guest from before open(2) to the end of the file. Gives all that was measured.
    ``record`` is told the times, also of a failure.

    Raises: AssertionError, UsageError; GuestCommandError if it cannot be read.
    """
    __tracebackhide__ = True
    if seconds <= 0 or repeat < 1:
        raise UsageError(
            f"assert_read_under: {repeat} reads within {seconds} s each cannot be demanded; both are above 0"
        )
    run = read_timed(vm, path, repeat)
    if record is not None:
        record(run.measurement)
    if run.measurement.max > seconds:
        raise AssertionError(describe_reads(run, seconds, str(vm.kernel.version)))
    return run


def describe_reads(run: ReadRun, budget: float, kernel: str) -> str:
    """The failure text of slow reads."""
    measured = run.measurement
    slow = sum(value > budget for value in run.seconds)
    lines = [
        f"{slow} of {len(run.seconds)} reads of {run.path} took longer than {_time(budget)}, at most "
        f"{_time(measured.max)} (kernel {kernel})",
        f"  max {_time(measured.max)}, p99 {_time(measured.p99)}, median {_time(measured.median)}, "
        f"the first {_time(run.seconds[0])}; {format_size(run.size)} each",
    ]
    if slow == 1 and run.seconds[0] > budget:
        lines.append("  only the first was slow: what it fetched was cached for the others")
    if run.dying:
        lines.append(
            f"  {run.dying} cgroups are dying, which makes files such as memory.stat slow on some kernels: "
            "assert_no_dying_cgroups tells what keeps them"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.3f} ms" if seconds < 1 else f"{seconds:.3f} s"
