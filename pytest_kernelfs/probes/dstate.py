"""Tasks stuck in uninterruptible sleep."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_kernelfs.guest import tasks
from pytest_kernelfs.machines.vm import VM

_GRACE_S = 30.0


@dataclass(frozen=True)
class StuckTask:
    """A task that did not leave state D, nor was once scheduled, for ``seconds`` of watching."""

    pid: int
    tid: int
    comm: str
    seconds: float
    wchan: str
    syscall: str
    stack: tuple[str, ...]


def stuck_tasks(vm: VM, longer_than: float, kernel_threads: bool = False) -> list[StuckTask]:
    """The tasks that stay in state D for ``longer_than`` seconds from now; see ``guest.tasks.stuck``."""
    found = vm.guest(tasks.stuck, longer_than, 0.05, kernel_threads, timeout=longer_than + _GRACE_S)
    return [StuckTask(**{**task, "stack": tuple(task["stack"])}) for task in found]
