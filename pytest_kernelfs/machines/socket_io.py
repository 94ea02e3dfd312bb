"""The stream to a guest, in the form that execnet asks for; to write to it never waits for the guest."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from typing import final

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.threads import start


@final
class SocketIO:
    """A connected stream socket.

    What it does not take at once is sent by a thread: a guest that is frozen takes nothing, and whoever
    writes may have a deadline, or other things to look after.
    """

    def __init__(self, connection: socket.socket) -> None:
        from execnet.gateway_base import get_execmodel

        self._socket = connection
        self._waiting: deque[memoryview] = deque()
        # Nobody waits for it: who does not get it leaves what is to be sent to who has it. So it does no harm
        # when execnet writes as a channel is collected, in the middle of another write of the same thread.
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._broken = False
        self._trouble: InfrastructureError | None = None
        self.took_at = 0.0
        """When the other end last took something that had to wait, by the monotonic clock."""
        self.execmodel = get_execmodel("thread")

    def read(self, numbytes: int, /) -> bytes:
        parts = []
        while numbytes:
            try:
                part = self._socket.recv(min(numbytes, 1 << 20))
            except OSError as error:
                raise EOFError from error
            if not part:
                raise EOFError
            parts.append(part)
            numbytes -= len(part)
        return b"".join(parts)

    def write(self, data: bytes, /) -> None:
        """Send it now or soon, after all that was written before.

        Raises: OSError if the other end is known to have gone; else ``read`` will tell. What is not taken at
        once, and finds no thread, goes before the next; ``check`` tells of it.
        """
        self._waiting.append(memoryview(data))
        self._send()
        if self._broken:
            raise BrokenPipeError("the other end has gone")

    def check(self) -> None:
        """Raises: InfrastructureError, once, if there was no thread for something that has to be sent.

        ``write`` cannot tell: execnet also writes where nobody could be told, as channels are collected.
        """
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    def _send(self) -> None:
        # Again, because somebody may have left us something after we last looked.
        while self._waiting and self._sending.acquire(blocking=False):
            ours = True
            try:
                if not self._send_what_fits():
                    thread = threading.Thread(target=self._send_on, name="kernelfs-send", daemon=True)
                    ours = False  # whatever interrupts us, the thread may run by then
                    start(thread)
                    self._thread = thread
                    return
            except InfrastructureError as error:
                self._trouble, ours = error, True
                return
            finally:
                if ours:  # also when the user interrupts: what is taken down then has to be sent, too
                    self._sending.release()

    def _send_on(self) -> None:
        """Send the rest, however long it takes; the lock is ours."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while True:
            while not self._send_what_fits():
                poll.poll()
                self.took_at = time.monotonic()
            self._sending.release()
            # As in ``_send``, but for another thread.
            if not (self._waiting and self._sending.acquire(blocking=False)):
                return

    def _send_what_fits(self) -> bool:
        """Whether nothing is left to be sent, be it because the other end has gone."""
        try:
            while self._waiting:
                data = self._waiting[0]
                count = self._socket.send(data, socket.MSG_DONTWAIT)
                if count < len(data):
                    self._waiting[0] = data[count:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            return False
        except OSError:
            self._broken = True
            self._waiting.clear()
            self.close_write()  # whoever reads is to know it, too
        return True

    def close_read(self) -> None:
        self.close_write()

    def close_write(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed already

    def wait(self) -> int | None:
        return None

    def kill(self) -> None:
        self.close_write()

    def close(self) -> None:
        """End it, and with it what is still being sent."""
        self.close_write()
        if self._thread is not None:
            self._thread.join()
        self._socket.close()
