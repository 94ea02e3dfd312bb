"""What a command in a machine says, written to our own streams without waiting for who reads them."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from typing import final

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.threads import start

# What is left to write when the user leaves is not waited for longer.
_END_S = 1.0


@final
class Outlet:
    """Writes in a thread, in the order it is told to: a pipe may be full, and a terminal stopped.

    Nothing tells beforehand whether a stream takes so much, and to have it refuse what it cannot take would
    change it for all who share it.
    """

    def __init__(self, waker: int) -> None:
        """``waker`` is written to when something is written, or could not be; it stays the caller's."""
        self._waker = waker
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._written: deque[int] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, descriptor: int, data: bytes) -> None:
        """Have it written. Raises: InfrastructureError."""
        with self._changed:
            self._waiting.append((descriptor, data))
            self._changed.notify()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="kernelfs-output", daemon=True)
            start(thread)
            self._thread = thread

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        with self._changed:
            return bool(self._waiting)

    def written(self) -> list[int]:
        """How long each was that has been written since.

        Raises: BrokenPipeError if nobody reads a stream any more; InfrastructureError if it cannot be
        written to.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            counts = list(self._written)
            self._written.clear()
        return counts

    def close(self) -> None:
        """Write no more than what is under way."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                descriptor, data = self._waiting[0]
            error: BaseException | None = None
            try:
                _write(descriptor, data)
            except (BrokenPipeError, InfrastructureError) as caught:
                error = caught
            with self._changed:
                if self._closed:
                    return  # the caller's waker may be another file by now
                self._waiting.popleft()
                self._written.append(len(data))
                self._error = error
                self._wake()
            if error is not None:
                return

    def _wake(self) -> None:
        try:
            os.write(self._waker, b"\0")
        except BlockingIOError:
            pass  # enough is there to wake it


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Whoever shares it with us made it so.
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                raise BrokenPipeError from None  # a reader, or a terminal, that is gone
            raise InfrastructureError(f"the command's output cannot be written: {error.strerror}") from None
