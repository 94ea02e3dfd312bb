"""Spares: machines prepared in the background while a test runs, so that the next finds one waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event
from typing import final

from pytest_kernelfs.machines.machine import Machine

Make = Callable[[], Machine | None]


@final
class Spares:
    """Keeps some machines of one kind ahead.

    They are made in threads that live until ``close``: a machine ends with the thread that started it.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._coming: deque[Future[Machine | None]] = deque()
        self._kind: Hashable = None

    def prepare(self, kind: Hashable, make: Make, count: int) -> None:
        """Have ``count`` machines of this kind on their way; those of another kind go.

        ``make`` gives a machine, or None if there is no room for one now.
        """
        if self._kind != kind:
            self.clear()
            self._kind = kind
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="kernelfs-spare")
        while len(self._coming) < count:
            abandoned = Event()
            try:
                self._coming.append(self._executor.submit(_make_unless, abandoned, make))
            except RuntimeError:  # no thread for it; whoever wants a machine makes it
                abandoned.set()  # another thread may still find that it is to be done
                return

    def take(self, kind: Hashable) -> Machine | None:
        """The next spare, waiting for it if it is on its way; None if there is none of this kind."""
        while self._kind == kind and self._coming:
            machine = _result(self._coming.popleft())
            if machine is not None and machine.alive:
                return machine
            if machine is not None:
                machine.destroy()
        return None

    def wait(self) -> None:
        """Wait until all that are on their way are there."""
        wait(self._coming)

    def clear(self) -> None:
        """End all spares."""
        while self._coming:
            future = self._coming.popleft()
            machine = None if future.cancel() else _result(future)
            if machine is not None:
                machine.destroy()
        self._kind = None

    def close(self) -> None:
        """End all spares and the threads. Machines that were taken have to be ended before."""
        self.clear()
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None


def _make_unless(abandoned: Event, make: Make) -> Machine | None:
    return None if abandoned.is_set() else make()


def _result(future: Future[Machine | None]) -> Machine | None:
    try:
        return future.result()
    except Exception:
        return None  # whoever takes finds no spare and makes a machine itself: the error comes up there
