"""Input that can be had again, and the keys that leave a machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.cli import attachment, terminal
from pytest_kernelfs.cli.attachment import Attachment, Input
from tests.cli.conftest import fill


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            pass  # the test did


def test_input_is_had_again_from_its_beginning(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    source = Input(reader, again=True)
    os.write(writer, b"first")
    assert (source.fileno(), source.read(3), source.read(100)) == (reader, b"fir", b"st")
    source.rewind()
    assert source.fileno() != reader
    assert source.read(100) == b"first"
    assert source.fileno() == reader
    os.write(writer, b", second")
    os.close(writer)
    assert (source.read(100), source.read(100)) == (b", second", b"")
    source.rewind()
    assert (source.read(100), source.read(100)) == (b"first, second", b"")
    source.close()


def test_a_terminal_is_asked_for_its_end_once() -> None:
    master, terminal_of_user = os.openpty()
    os.write(master, b"line\n\x04")
    source = Input(terminal_of_user, again=True)
    assert (source.read(100), source.read(100)) == (b"line\n", b"")
    source.rewind()
    assert (source.read(100), source.fileno() == terminal_of_user, source.read(100)) == (
        b"line\n",
        False,
        b"",
    )
    source.close()
    os.close(master)
    os.close(terminal_of_user)


def test_input_that_another_process_was_quicker_to_read_is_not_its_end(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[0], False)
    source = Input(pipe[0])
    assert source.read(100) is None
    os.close(pipe[1])
    assert source.read(100) == b""
    source.close()


def test_input_that_is_read_once_is_not_kept(pipe: tuple[int, int]) -> None:
    source = Input(pipe[0])
    os.write(pipe[1], b"text")
    assert source.read(100) == b"text"
    source.rewind()
    assert source.fileno() == pipe[0]
    source.close()


class FakeExchange:
    """A command that has written ``data``, and ended."""

    def __init__(self, data: bytes) -> None:
        self.value = {"rc": 0, "stuck": ""}
        self._items: list[tuple[Any, ...]] = [
            ("out", data[at : at + 1000]) for at in range(0, len(data), 1000)
        ]
        self._readable, self._writable = os.pipe()
        os.close(self._writable)
        self.sent: list[Any] = []

    def fileno(self) -> int:
        return self._readable

    def take(self) -> list[tuple[Any, ...]]:
        items, self._items = self._items, []
        return items

    def send(self, item: Any) -> None:
        self.sent.append(item)

    @property
    def finished(self) -> bool:
        return not self._items

    def close(self) -> None:
        os.close(self._readable)


class TestOutput:
    @pytest.fixture
    def full(self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> int:
        """Our output is a full pipe; gives how much is in it."""
        monkeypatch.setattr(attachment, "STDOUT", pipe[1])
        return fill(pipe[1])

    def test_all_that_a_command_wrote_is_waited_for(
        self, pipe: tuple[int, int], full: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attachment, "_LAST_WORDS_S", 600.0)
        got = bytearray()

        def read() -> None:
            while len(got) < full + 5000:
                got.extend(os.read(pipe[0], 1 << 16))

        reader = threading.Thread(target=read)
        exchange = FakeExchange(5 * bytes(range(250)) * 4)
        with closing(Attachment(exchange, None, timeout=0.01)) as attached:
            end = attached._end

            def end_and_read() -> None:
                end()
                reader.start()

            monkeypatch.setattr(attached, "_end", end_and_read)
            assert attached.serve() == exchange.value
        reader.join()
        assert got[full:] == 5 * bytes(range(250)) * 4
        assert (attached.timed_out, attached.unread) == (False, False)

    def test_but_not_for_ever_if_there_is_a_time(
        self, pipe: tuple[int, int], full: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attachment, "_LAST_WORDS_S", 0.05)
        with closing(Attachment(FakeExchange(bytes(5000)), None, timeout=0.01)) as attached:
            assert attached.serve()["rc"] == 0
        assert (attached.timed_out, attached.unread) == (False, True)

    @pytest.mark.parametrize("within", [1000.0, None])
    def test_a_signal_is_passed_on_meanwhile(
        self, pipe: tuple[int, int], full: int, within: float | None
    ) -> None:
        exchange = FakeExchange(bytes(5000))
        with closing(Attachment(exchange, None, timeout=within)) as attached:
            attached.request("signal", 2)
            send = exchange.send

            def send_and_read(item: Any) -> None:
                send(item)
                if item == ("signal", 2):
                    os.close(pipe[0])

            exchange.send = send_and_read  # type: ignore[method-assign]
            with pytest.raises(BrokenPipeError):
                attached.serve()
        assert ("signal", 2) in exchange.sent


class TestKeys:
    type: Callable[[bytes], int]

    @pytest.fixture
    def keys(self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> terminal.Keys:
        monkeypatch.setattr(terminal, "STDIN", pipe[0])
        self.type = lambda data: os.write(pipe[1], data)
        return terminal.Keys()

    def test_what_is_typed_is_passed_on(self, keys: terminal.Keys) -> None:
        self.type(b"ls\x1d\x1d -l\x1d\r")
        assert keys.read(100) == b"ls\x1d\x1d -l\x1d\r"

    def test_three_times_leaves(self, keys: terminal.Keys) -> None:
        for _ in range(2):
            self.type(b"\x1d")
            assert keys.read(100) == b"\x1d"
        self.type(b"\x1d")
        with pytest.raises(terminal.LeftMachine):
            keys.read(100)

    def test_but_not_slowly(self, keys: terminal.Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: now)
        for _ in range(5):
            self.type(b"\x1d")
            assert keys.read(100) == b"\x1d"
            now += 1.5

    def test_a_terminal_that_is_gone_leaves(self, keys: terminal.Keys, pipe: tuple[int, int]) -> None:
        os.close(pipe[1])
        with pytest.raises(terminal.LeftMachine):
            keys.read(100)


def test_terminals_are_described_as_this_host_knows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINFO", str(tmp_path))
    for folder in ("x", "61"):
        (tmp_path / folder).mkdir()
    (tmp_path / "x" / "xterm-of-mine").write_bytes(b"described")
    (tmp_path / "61" / "another").write_bytes(b"also")
    assert terminal.description("xterm-of-mine") == b"described"
    assert terminal.description("another") == b"also"
    for unknown in ("no-such-terminal", "", "../x/xterm-of-mine"):
        assert terminal.description(unknown) is None
