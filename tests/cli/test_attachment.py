"""Input that can be had again, and the keys that leave a machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.cli import terminal
from pytest_kernelfs.cli.attachment import Input


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
