"""No task stuck in uninterruptible sleep."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_kernelfs.arguments import check_seconds
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.dstate import StuckTask, stuck_tasks


def no_dstate(
    vm: VM,
    longer_than: float = 1.0,
    *,
    kernel_threads: bool = False,
    record: Callable[[Measurement], None] | None = None,
) -> None:
    """Demand that no task stays in uninterruptible sleep for ``longer_than`` seconds from now.

    Returns at once when no task is in state D. Kernel threads are left out by default.
    ``record`` is told how many were stuck, also if none was.

    Raises: AssertionError, naming each task, where it waits and its kernel stack.
    """
    __tracebackhide__ = True
    longer_than = check_seconds("assert_no_dstate: longer_than", longer_than)
    if longer_than <= 0:
        raise UsageError(f"assert_no_dstate: longer_than is a time in seconds above 0, not {longer_than}")
    found = stuck_tasks(vm, longer_than, kernel_threads)
    if record is not None:
        record(Measurement.of("stuck in D", "tasks", [len(found)]))
    if found:
        raise AssertionError(describe_stuck(found, longer_than, str(vm.kernel.version)))


def describe_stuck(found: Sequence[StuckTask], longer_than: float, kernel: str) -> str:
    """The failure text of tasks that were found stuck."""
    noun = "task has" if len(found) == 1 else "tasks have"
    lines = [
        f"{len(found)} {noun} been in uninterruptible sleep (D) for longer than {longer_than:g} s "
        f"without being scheduled (kernel {kernel})"
    ]
    for task in found:
        lines.append(
            f"  {task.comm} (pid {task.pid}, tid {task.tid}): {task.seconds:.2f} s, "
            f"waits in {task.wchan or 'an unknown place'}, syscall {task.syscall or 'unknown'}"
        )
        lines += [f"      {frame}" for frame in task.stack]
    return "\n".join(lines)
