"""Joins the streams of this process to a command in a machine."""

from __future__ import annotations

import math
import os
import selectors
import tempfile
import time
from collections import deque
from typing import Any, Protocol, final

from pytest_kernelfs.cli.outlet import Outlet
from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.guest.attached import CHUNK, WINDOW
from pytest_kernelfs.machines.machine import Exchange

# What the guest may take to kill a command, to give up on it, and to say so; and who reads, to read the rest.
_LAST_WORDS_S = 15.0
_LONG_S = 3600.0
STDIN, STDOUT, STDERR = 0, 1, 2


class Source(Protocol):
    """Where a command's input comes from."""

    def fileno(self) -> int:
        """Readable when ``read`` has something to give."""

    def read(self, most: int) -> bytes | None:
        """What there is now; b"" at its end, None if it is not to be had here for now."""


@final
class Input:
    """The input of this process, which can be had again from its beginning for another machine."""

    def __init__(self, descriptor: int = STDIN, *, again: bool = False) -> None:
        """``again`` tells that it will be read more than once, so that what was read has to be kept."""
        self._descriptor = descriptor
        self._kept = tempfile.TemporaryFile(buffering=0) if again else None  # noqa: SIM115  (it lives with us)
        self._position = self._length = 0
        self._ended = False

    def rewind(self) -> None:
        """Begin again with what was read first."""
        self._position = 0

    def fileno(self) -> int:
        if self._kept is not None and (self._ended or self._position < self._length):
            return self._kept.fileno()
        return self._descriptor

    def read(self, most: int) -> bytes | None:
        if self._kept is not None and (self._ended or self._position < self._length):
            data = os.pread(self._kept.fileno(), most, self._position)
        else:
            try:
                data = os.read(self._descriptor, most)
            except BlockingIOError:
                return None  # whoever shares it with us made it so, and was quicker
            self._ended = not data  # a terminal could be typed at again
            if self._kept is not None:
                self._kept.write(data)
                self._length += len(data)
        self._position += len(data)
        return data

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()


def has_input() -> bool:
    """Whether this process may read its input: not in the background of a terminal, or without any."""
    try:
        return not os.isatty(STDIN) or os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False


@final
class Attachment:
    """A command in a machine, with our streams for its own; see ``guest.attached``."""

    def __init__(self, exchange: Exchange, source: Source | None, *, timeout: float | None = None) -> None:
        """After ``timeout`` seconds the command is killed. Without a ``source`` its input is empty.

        Whoever reads its output may take their time, but not much longer than that if there is a timeout.
        """
        self._exchange = exchange
        self._source = source
        self._watched: int | None = None
        self._room = WINDOW
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self.timed_out = False
        """Whether the command was killed because its time was up."""
        self.unread = False
        """Whether some of its output was dropped, because nobody had read it long after the time was up."""
        self._overdue = False
        self._requests: deque[tuple[Any, ...]] = deque()
        self._woken, self.waker = os.pipe()
        for descriptor in (self._woken, self.waker):
            os.set_blocking(descriptor, False)
        self._outlet = Outlet(self.waker)
        self._selector = selectors.PollSelector()
        self._selector.register(exchange.fileno(), selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def request(self, *item: Any) -> None:
        """Have an item sent soon; for handlers of signals, too."""
        self._requests.append(item)
        try:
            os.write(self.waker, b"\0")
        except BlockingIOError:
            pass  # enough is there to wake it

    def serve(self) -> dict[str, Any]:
        """Pass on what comes until all is written and read; gives what ``guest.attached.run`` gives.

        Raises: KernelPanic and what else ends a machine; GuestTimeout if it does not answer after its time;
        GuestCommandError; BrokenPipeError if nobody reads our output.
        """
        if self._source is None:
            self._exchange.send(("eof",))
        while not (self._exchange.finished and (self.unread or not self._outlet.busy)):
            self._watch_source()
            patience = min(max(self._deadline - time.monotonic(), 0.0), _LONG_S)
            ready = {key.fd for key, _ in self._selector.select(patience)}
            if self._exchange.fileno() in ready:
                self._show()
            if self._woken in ready:
                os.read(self._woken, 4096)
            self._send_what_was_written()
            self._send_requests()
            if self._watched in ready and not self._exchange.finished:
                self._feed()
            if time.monotonic() >= self._deadline:
                self._end()
        self._outlet.written()  # raises what kept the last of it from being written
        value: dict[str, Any] = self._exchange.value
        return value

    def _watch_source(self) -> None:
        """Wait for input while there is room for it."""
        wanted = None
        if self._source is not None and self._room > 0 and not self._exchange.finished:
            wanted = self._source.fileno()
        if wanted != self._watched:
            if self._watched is not None:
                self._selector.unregister(self._watched)
            if wanted is not None:
                self._selector.register(wanted, selectors.EVENT_READ)
            self._watched = wanted

    def _show(self) -> None:
        for kind, value in self._exchange.take():
            if kind == "took":
                self._room += value
            else:
                self._outlet.put(STDOUT if kind == "out" else STDERR, value)

    def _send_what_was_written(self) -> None:
        for count in self._outlet.written():
            self._exchange.send(("took", count))

    def _send_requests(self) -> None:
        while self._requests:
            self._exchange.send(self._requests.popleft())

    def _feed(self) -> None:
        assert self._source is not None
        data = self._source.read(min(CHUNK, self._room))
        if data is None:
            return
        if data:
            self._room -= len(data)
            self._exchange.send(("in", data))
        else:
            self._source = None
            self._exchange.send(("eof",))

    def _end(self) -> None:
        """The time is up: have the command killed; and later, give up on who does not go on."""
        if not self._overdue:
            self._overdue = True
            self._deadline = time.monotonic() + _LAST_WORDS_S
            if not self._exchange.finished:
                self.timed_out = True
                self._exchange.send(("end",))
            return
        self.unread = self._outlet.busy
        if not self._exchange.finished:
            raise GuestTimeout("the machine does not answer any more")

    def close(self) -> None:
        self._outlet.close()
        self._selector.close()
        self._exchange.close()
        os.close(self._woken)
        os.close(self.waker)
