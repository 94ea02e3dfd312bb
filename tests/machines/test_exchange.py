"""Calls in which items go both ways, with a local process for the guest."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, InfrastructureError, UsageError
from pytest_kernelfs.guest import attached, files
from pytest_kernelfs.machines.channel import GuestChannel, GuestExchange
from pytest_kernelfs.machines.socket_io import SocketIO
from tests.local_guest import Guest, converse

PATIENCE_S = 120.0


@pytest.fixture
def conversation() -> Iterator[tuple[GuestChannel, Guest]]:
    channel, guest = converse()
    yield channel, guest
    channel.close()
    guest.kill()
    guest.wait()


@pytest.fixture
def channel(conversation: tuple[GuestChannel, Guest]) -> GuestChannel:
    return conversation[0]


def attach(channel: GuestChannel, script: str, *arguments: Any) -> GuestExchange:
    return channel.exchange(attached.run, [["sh", "-c", script], *arguments], InfrastructureError)


def finish(exchange: GuestExchange) -> list[Any]:
    """All its items."""
    items = []
    while not exchange.finished:
        assert select.select([exchange], [], [], PATIENCE_S)[0]
        items += exchange.take()
    return items


def test_items_go_both_ways_until_there_is_a_value(channel: GuestChannel) -> None:
    exchange = attach(channel, "read line; echo $line; exit 3")
    exchange.send(("in", b"there and back\n"))
    assert ("out", b"there and back\n") in finish(exchange)
    assert exchange.value == {"rc": 3, "stuck": ""}
    exchange.send(("in", b"too late"))
    exchange.close()


def test_several_go_on_at_once_beside_calls(channel: GuestChannel) -> None:
    both = [attach(channel, f"head -c 200000 /dev/zero; read line; exit {code}") for code in (1, 2)]
    put = ("pytest_kernelfs.guest.files", "get")
    assert channel.call("name", put, [files.__file__], {}, PATIENCE_S)
    for exchange in both:
        exchange.send(("eof",))
    for code, exchange in enumerate(both, 1):
        assert sum(len(value) for _, value in finish(exchange)) == 200_000
        assert exchange.value["rc"] == code
        exchange.close()


def test_what_the_function_raises_is_told(channel: GuestChannel, tmp_path: Path) -> None:
    exchange = attach(channel, "true", str(tmp_path / "none"))
    assert finish(exchange) == []
    with pytest.raises(GuestCommandError, match="cannot run a command in the folder"):
        _ = exchange.value
    exchange.close()


def test_the_end_of_the_guest_is_explained(conversation: tuple[GuestChannel, Guest]) -> None:
    channel, guest = conversation
    exchange = attach(channel, "echo begun; read line")
    assert select.select([exchange], [], [], PATIENCE_S)[0]
    guest.kill()
    finish(exchange)
    with pytest.raises(InfrastructureError, match=r"the channel to the guest closed during a call of run"):
        _ = exchange.value
    exchange.send(("in", b"nobody hears it"))
    exchange.close()
    with pytest.raises(InfrastructureError, match=r"the channel to the guest closed before a call of run"):
        attach(channel, "true")


def test_arguments_that_cannot_be_sent_are_refused(channel: GuestChannel) -> None:
    with pytest.raises(UsageError, match="the arguments of run cannot be sent"):
        channel.exchange(attached.run, [object()], InfrastructureError)


def test_to_close_it_ends_the_command(channel: GuestChannel, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    exchange = attach(channel, f"exec 3> {fifo}; sleep 1000")
    with fifo.open() as reader:
        exchange.close()
        assert reader.read() == ""  # its end: nobody holds the other end open any more


def test_it_can_be_closed_when_the_guest_has_just_gone(
    channel: GuestChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before our thread that reads the channel has seen it."""
    exchange = attach(channel, "echo up; sleep 20")
    assert select.select([exchange], [], [], PATIENCE_S)[0]
    descriptor = exchange.fileno()

    def gone(_io: SocketIO, _data: bytes) -> None:
        raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(SocketIO, "write", gone)
        exchange.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
