"""Writing to a guest: all of it arrives, in order, and nobody waits for it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.socket_io import SocketIO
from tests.no_threads import no_threads

PATIENCE_S = 60.0
# Much more than a socket takes while nobody reads.
LARGE = bytes(range(256)) * 32768


@pytest.fixture
def ends() -> Iterator[tuple[SocketIO, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE_S)
    io = SocketIO(ours)
    yield io, theirs
    io.close()
    theirs.close()


def receive(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        assert part, "it was closed"
        parts += part
    return bytes(parts)


def test_what_is_large_arrives_though_nobody_waited_for_it(ends: tuple[SocketIO, socket.socket]) -> None:
    io, theirs = ends
    for data in (b"first", LARGE, b"last"):
        io.write(data)  # nobody reads yet
    assert receive(theirs, len(LARGE) + 9) == b"first" + LARGE + b"last"
    io.write(b"more")
    assert receive(theirs, 4) == b"more"


def test_messages_of_several_threads_stay_whole(ends: tuple[SocketIO, socket.socket]) -> None:
    io, theirs = ends
    size = 300_000

    def write(letter: bytes) -> None:
        for _ in range(5):
            io.write(letter * size)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    arrived = receive(theirs, 15 * size)
    messages = [arrived[start : start + size] for start in range(0, len(arrived), size)]
    assert all(len(set(message)) == 1 for message in messages)
    assert {letter: arrived.count(letter) for letter in b"abc"} == dict.fromkeys(b"abc", 5 * size)
    for thread in threads:
        thread.join()


class Interrupted:
    """A socket with which something else is written in the middle of a write, as a collection may."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.io: SocketIO | None = None

    def send(self, data: memoryview, flags: int) -> int:
        if self.io is not None:
            io, self.io = self.io, None
            io.write(b"inner")
        return self._real.send(data[:3], flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_to_write_in_the_middle_of_a_write_does_no_harm() -> None:
    ours, theirs = socket.socketpair()
    interrupted: Any = Interrupted(ours)
    io = interrupted.io = SocketIO(interrupted)
    io.write(b"outer message")
    assert receive(theirs, 18) == b"outer messageinner"
    io.close()
    theirs.close()


def test_what_was_interrupted_is_sent_before_what_follows(
    ends: tuple[SocketIO, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_io: SocketIO) -> bool:
        raise KeyboardInterrupt

    io, theirs = ends
    with monkeypatch.context() as patch:
        patch.setattr(SocketIO, "_send_what_fits", interrupt)
        with pytest.raises(KeyboardInterrupt):
            io.write(b"first")
    io.write(b"second")
    assert receive(theirs, 11) == b"firstsecond"


@pytest.mark.parametrize("read_first", [False, True])
def test_an_end_that_has_gone_is_told(ends: tuple[SocketIO, socket.socket], *, read_first: bool) -> None:
    io, theirs = ends
    theirs.close()
    if read_first:
        with pytest.raises(EOFError):
            io.read(1)
    with pytest.raises(OSError, match="gone"):
        io.write(b"data")


def test_an_end_that_goes_instead_of_taking_all_is_told(ends: tuple[SocketIO, socket.socket]) -> None:
    io, theirs = ends
    io.write(LARGE)
    theirs.shutdown(socket.SHUT_RD)  # it could still be read from
    while theirs.recv(1 << 20):  # of a half that has ended nobody is woken but by room to send more
        pass
    with pytest.raises(EOFError):
        io.read(1)


def test_it_can_be_closed_while_the_other_end_takes_nothing(ends: tuple[SocketIO, socket.socket]) -> None:
    io, theirs = ends
    io.write(LARGE)
    io.close()
    assert 0 < len(theirs.recv(len(LARGE))) < len(LARGE)


def test_without_a_thread_what_waits_goes_before_the_next(
    ends: tuple[SocketIO, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    io, theirs = ends
    with no_threads(monkeypatch):
        io.write(LARGE)
    with pytest.raises(InfrastructureError, match=r"thread.*ulimit -u"):
        io.check()
    io.check()
    io.write(b"last")
    assert receive(theirs, len(LARGE) + 4) == LARGE + b"last"


def test_without_a_thread_it_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    io = SocketIO(ours)
    with no_threads(monkeypatch):
        io.write(LARGE)
    io.close()
    assert ours.fileno() == -1
    theirs.close()


def test_what_is_written_while_the_thread_sends_is_sent_by_it(
    ends: tuple[SocketIO, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    io, theirs = ends
    io.write(LARGE)
    with no_threads(monkeypatch):
        for _ in range(3):
            io.write(LARGE)
        assert receive(theirs, 4 * len(LARGE)) == 4 * LARGE


def test_that_something_is_taken_is_noted(ends: tuple[SocketIO, socket.socket]) -> None:
    io, theirs = ends
    io.write(LARGE)
    assert io.took_at == 0.0
    receive(theirs, len(LARGE))
    assert io.took_at > 0.0
