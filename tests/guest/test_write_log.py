"""Logs of writes: read entry by entry, and replayed to a mark."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.guest import kmsg, write_log
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import stand_still

SECTOR = 512
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SIZE = 1 << 16


def entry(flags: int, sector: int = 0, data: bytes = b"", sectors: int = 0, mark: bytes = b"") -> bytes:
    sectors = len(data) // SECTOR or sectors
    head = struct.pack("<QQQQ", sector, sectors, flags, len(mark)) + mark
    return head.ljust(SECTOR, b"\0") + data


def block(byte: bytes, sectors: int = 1) -> bytes:
    return byte * SECTOR * sectors


ENTRIES = [
    entry(0, 2, block(b"a", 2)),
    entry(FLUSH),
    entry(MARK, mark=b"one"),
    entry(FUA, 3, block(b"b", 3)),
    entry(DISCARD, 2, sectors=1),
    entry(MARK, mark=b"two"),
    entry(0, 2, block(b"c")),
]


class Files:
    """A log and a device, both files."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.device = folder / "device"
        self.device.write_bytes(b"x" * SIZE)

    def write(self, entries: list[bytes], count: int | None = None, magic: int = 0x6A736677736872) -> None:
        head = struct.pack("<QQQI", magic, 1, len(entries) if count is None else count, SECTOR)
        self.log.write_bytes((head.ljust(SECTOR, b"\0") + b"".join(entries)).ljust(SIZE, b"\0"))

    def replay(self, mark: str, blank: bool = True) -> bytes:
        write_log.replay(str(self.log), str(self.device), mark, blank)
        content = self.device.read_bytes()
        assert len(content) == SIZE
        return content[2 * SECTOR : 6 * SECTOR]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    # Not all file systems of a host know O_DIRECT, and no file has a device's ioctls.
    monkeypatch.setattr(os, "O_DIRECT", 0)
    monkeypatch.setattr(write_log, "_size_of", lambda handle: os.fstat(handle).st_size)
    files = Files(tmp_path)
    files.write(ENTRIES)
    return files


def test_marks_are_found_in_order(files: Files) -> None:
    assert write_log.marks(str(files.log)) == ["one", "two"]


def test_replay_stops_at_the_mark(files: Files) -> None:
    assert files.replay("one") == block(b"a", 2) + block(b"\0", 2)
    assert files.replay("two") == block(b"\0") + block(b"b", 3)
    # The later mark has left nothing for the earlier one.
    assert files.replay("one") == block(b"a", 2) + block(b"\0", 2)


def test_replay_onto_what_is_there(files: Files) -> None:
    assert files.replay("one", blank=False) == block(b"a", 2) + block(b"x", 2)
    assert files.device.read_bytes().startswith(b"x")


def test_entries_and_bytes_are_counted(files: Files) -> None:
    assert write_log.replay(str(files.log), str(files.device), "two") == (5, 5 * SECTOR)


def test_long_writes_are_replayed_in_parts(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_log, "_CHUNK", 3 * 4096)
    data = b"".join(block(bytes([number]), 1) for number in range(1, 70))
    files.write([entry(0, 1, data), entry(MARK, mark=b"end")])
    write_log.replay(str(files.log), str(files.device), "end")
    assert files.device.read_bytes()[SECTOR : SECTOR + len(data)] == data


def test_a_mark_that_is_not_there_is_told_before_anything_is_written(files: Files) -> None:
    with pytest.raises(GuestError, match=r"no mark 'three' in the log on .*; its marks are: one, two"):
        files.replay("three")
    assert files.device.read_bytes() == b"x" * SIZE


def test_what_is_beyond_the_count_is_of_an_older_log(files: Files) -> None:
    files.write(ENTRIES, count=4)
    assert write_log.marks(str(files.log)) == ["one"]


def test_a_device_that_is_too_small_is_told(files: Files) -> None:
    files.device.write_bytes(b"x" * SECTOR)
    with pytest.raises(GuestError, match="too small"):
        files.replay("one")


def test_no_log_is_told(files: Files) -> None:
    files.write([], magic=7)
    with pytest.raises(GuestError, match="holds no log of writes yet"):
        write_log.marks(str(files.log))


def test_waiting_goes_on_from_where_it_was(files: Files) -> None:
    seen = write_log.wait_for_mark(str(files.log), "one", 0, 0, 1.0)
    assert seen[0] == 3
    assert write_log.wait_for_mark(str(files.log), "two", *seen, 1.0)[0] == 6


def test_a_mark_that_comes_after_the_machine_stood_still_is_found(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_still(monkeypatch)
    monkeypatch.setattr(kmsg, "read", list)
    looks = itertools.count(1)
    entries = write_log.Log.entries

    def look(
        log: write_log.Log, seen: int = 0, offset: int = 0
    ) -> Iterator[tuple[int, int, write_log.Entry]]:
        if next(looks) == 3:
            files.write(ENTRIES)
        return entries(log, seen, offset)

    files.write(ENTRIES[:2])
    monkeypatch.setattr(write_log.Log, "entries", look)
    assert write_log.wait_for_mark(str(files.log), "one", 0, 0, 1.0)[0] == 3


def test_a_log_that_does_not_begin_is_told(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "read", list)
    files.write([], magic=7)
    with pytest.raises(GuestError, match=r"the mark 'one' did not reach .*; .* holds no log of writes yet"):
        write_log.wait_for_mark(str(files.log), "one", 0, 0, 0.02)


@pytest.mark.parametrize(
    ("said", "told"), [("Ran out of space on the logdev", "the log is full"), ("", "does not say why")]
)
def test_a_mark_that_does_not_come_is_told(
    files: Files, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    monkeypatch.setattr(kmsg, "read", lambda: [{"text": said}])
    monkeypatch.setattr(write_log, "_FULL_AFTER_S", 0.0)
    with pytest.raises(GuestError, match=f"the mark 'three' did not reach the log .*; .*{told}"):
        write_log.wait_for_mark(str(files.log), "three", 0, 0, 0.02)
