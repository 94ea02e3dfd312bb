"""Spares: machines prepared in the background while a test runs, so that the next finds one waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event, Thread
from typing import final

from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.machines.machine import Machine

Make = Callable[[], Machine | None]

_LOOK_S = 0.1


@final
class Spares:
    """Keeps some machines of one kind ahead, for as long as nobody else needs the room they take.

    They are made in threads that live until ``close``: a machine ends with the thread that started it.
    """

    def __init__(self, in_the_way: Callable[[], bool]) -> None:
        """``in_the_way`` tells whether somebody waits for room; it is asked all the time."""
        self._in_the_way = in_the_way
        self._executor: ThreadPoolExecutor | None = None
        self._watcher: Thread | None = None
        self._closing = Event()
        # The watcher takes from these, too.
        self._coming: deque[Future[Machine | None]] = deque()
        self._kind: Hashable = None

    def prepare(self, kind: Hashable, make: Make, count: int) -> None:
        """Have ``count`` machines of this kind on their way; those of another kind go.

        ``make`` gives a machine, or None if there is no room for one now.
        """
        self._clear_but(kind)
        self._kind = kind
        while len(self._coming) < count:
            abandoned = Event()
            try:
                self._coming.append(self._started().submit(_make_unless, abandoned, make))
            except RuntimeError:  # no thread for it; whoever wants a machine makes it
                abandoned.set()  # another thread may still find that it is to be done
                return

    def _started(self) -> ThreadPoolExecutor:
        """Raises: RuntimeError if there may be no more threads."""
        if self._executor is None:
            self._closing = Event()
            watcher = Thread(
                target=self._watch, args=(self._closing,), name="kernelfs-spare-watch", daemon=True
            )
            watcher.start()
            self._watcher = watcher
            self._executor = ThreadPoolExecutor(max_workers=2, thread_name_prefix="kernelfs-spare")
        return self._executor

    def _watch(self, closing: Event) -> None:
        while not closing.wait(_LOOK_S):
            try:
                if self._coming and self._in_the_way():
                    self.clear()
            except (KernelfsError, OSError):
                pass  # it comes up again where somebody takes a machine

    def take(self, kind: Hashable) -> Machine | None:
        """The next spare, waiting for it if it is on its way; None if there is none of this kind.

        Those of another kind go: they would be in the way of the machine that is made instead.
        """
        self._clear_but(kind)
        while (future := self._next()) is not None:
            machine = _result(future)
            if machine is not None and machine.alive:
                return machine
            if machine is not None:
                machine.destroy()
        return None

    def _clear_but(self, kind: Hashable) -> None:
        if self._kind != kind:
            self.clear()

    def _next(self) -> Future[Machine | None] | None:
        try:
            return self._coming.popleft()
        except IndexError:
            return None

    def wait(self) -> None:
        """Wait until all that are on their way are there."""
        wait(self._coming.copy())

    def clear(self) -> None:
        """End all spares."""
        while (future := self._next()) is not None:
            machine = None if future.cancel() else _result(future)
            if machine is not None:
                machine.destroy()

    def close(self) -> None:
        """End all spares and the threads. Machines that were taken have to be ended before."""
        self._closing.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
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
