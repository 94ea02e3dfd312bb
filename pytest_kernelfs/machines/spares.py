"""Spares: machines prepared in the background while a test runs, so that the next finds one waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import final

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import Machine, MachineSpec

Make = Callable[[Kernel, MachineSpec], Machine | None]
_Wanted = tuple[Kernel, MachineSpec]


@final
class Spares:
    """Keeps some machines of one kind ahead.

    ``make`` gives a machine, or None if there is no room for one now. It runs in a thread that lives
    until ``close``: a machine ends with the thread that started it.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._executor: ThreadPoolExecutor | None = None
        self._coming: deque[Future[Machine | None]] = deque()
        self._wanted: _Wanted | None = None

    def prepare(self, kernel: Kernel, spec: MachineSpec, count: int) -> None:
        """Have ``count`` machines of this kind on their way; those of another kind go."""
        if self._wanted != (kernel, spec):
            self.clear()
            self._wanted = (kernel, spec)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="kernelfs-spare")
        while len(self._coming) < count:
            self._coming.append(self._executor.submit(self._make, kernel, spec))

    def take(self, kernel: Kernel, spec: MachineSpec) -> Machine | None:
        """The next spare, waiting for it if it is on its way; None if there is none of this kind."""
        if self._wanted != (kernel, spec):
            return None
        while self._coming:
            machine = _result(self._coming.popleft())
            if machine is not None and machine.alive:
                return machine
            if machine is not None:
                machine.destroy()
        return None

    def clear(self) -> None:
        """End all spares."""
        while self._coming:
            future = self._coming.popleft()
            machine = None if future.cancel() else _result(future)
            if machine is not None:
                machine.destroy()
        self._wanted = None

    def close(self) -> None:
        """End all spares and the threads. Machines that were taken have to be ended before."""
        self.clear()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _result(future: Future[Machine | None]) -> Machine | None:
    try:
        return future.result()
    except Exception:
        return None  # whoever takes finds no spare and makes a machine itself: the error comes up there
