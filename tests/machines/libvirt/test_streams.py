"""What runs over libvirt's streams: all of it, in order, however little either side takes at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pytest_kernelfs.machines.libvirt.streams import ConsoleStream, StreamSocket

libvirt = pytest.importorskip("libvirt")
READABLE, WRITABLE = libvirt.VIR_STREAM_EVENT_READABLE, libvirt.VIR_STREAM_EVENT_WRITABLE
LATER = -2


class FakeStream:
    """A stream whose far end the test plays; ``room`` is how many bytes it takes before it says: later."""

    def __init__(self) -> None:
        self.arriving = bytearray()
        self.sent = bytearray()
        self.room = 1 << 30
        self.wanted = 0
        self.ended = False
        self.aborted = threading.Event()
        self._told: Callable[[Any, int, Any], None] | None = None

    def eventAddCallback(self, events: int, told: Callable[[Any, int, Any], None], _opaque: Any) -> None:  # noqa: N802  (libvirt's name)
        self.wanted, self._told = events, told

    def eventUpdateCallback(self, events: int) -> None:  # noqa: N802  (libvirt's name)
        self.wanted = events

    def eventRemoveCallback(self) -> None:  # noqa: N802  (libvirt's name)
        self._told = None

    def recv(self, size: int) -> bytes | int:
        piece = bytes(self.arriving[:size])
        del self.arriving[:size]
        return piece or (b"" if self.ended else LATER)

    def send(self, data: bytes) -> int:
        taken = min(len(data), self.room)
        self.sent += data[:taken]
        self.room -= taken
        return taken or LATER

    def abort(self) -> None:
        self.aborted.set()

    def happen(self, events: int) -> None:
        assert self._told is not None
        self._told(self, events & self.wanted, None)


@pytest.fixture
def stream() -> FakeStream:
    return FakeStream()


def receive(end: socket.socket, size: int) -> bytes:
    end.settimeout(120)
    data = b""
    while len(data) < size and (piece := end.recv(size - len(data))):
        data += piece
    return data


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_arrives_can_be_read(stream: FakeStream) -> None:
    carrier = StreamSocket(stream)
    stream.arriving += b"hello"
    stream.happen(READABLE)
    assert receive(carrier.near, 5) == b"hello"
    carrier.close()
    carrier.near.close()


def test_more_than_a_socket_holds_arrives_when_it_is_read(stream: FakeStream) -> None:
    carrier = StreamSocket(stream)
    content = bytes(range(256)) * 8192
    stream.arriving += content

    def feed() -> None:
        while stream.arriving:
            if stream.wanted & READABLE:
                stream.happen(READABLE)
            time.sleep(0.001)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert receive(carrier.near, len(content)) == content
    feeder.join()
    carrier.close()
    carrier.near.close()


def test_what_the_stream_does_not_take_at_once_is_sent_later(stream: FakeStream) -> None:
    stream.room = 3
    carrier = StreamSocket(stream)
    carrier.near.sendall(b"hello")
    until(lambda: stream.wanted & WRITABLE)
    stream.room = 100
    stream.happen(WRITABLE)
    until(lambda: bytes(stream.sent) == b"hello")
    assert not stream.wanted & WRITABLE
    carrier.close()
    carrier.near.close()


def test_the_end_of_the_stream_is_the_sockets(stream: FakeStream) -> None:
    carrier = StreamSocket(stream)
    stream.ended = True
    stream.happen(READABLE)
    assert receive(carrier.near, 1) == b""
    carrier.near.close()


def test_the_end_of_the_socket_is_the_streams(stream: FakeStream) -> None:
    carrier = StreamSocket(stream)
    carrier.near.close()
    assert stream.aborted.wait(120)


def test_a_console_keeps_what_was_printed(stream: FakeStream) -> None:
    console = ConsoleStream(stream)
    stream.arriving += b"one "
    stream.happen(READABLE)
    stream.arriving += b"two"
    stream.happen(READABLE)
    console.type(b"9")
    assert (console.printed, bytes(stream.sent)) == (b"one two", b"9")
    stream.ended = True
    stream.happen(READABLE)
    console.wait_end(0)
    assert stream.aborted.is_set()
    with pytest.raises(OSError, match="takes no key"):
        console.type(b"9")
