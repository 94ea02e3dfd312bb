"""The log of a disk's writes: what is done again, and what is not."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu.write_log import SECTOR, replay

FLUSH, FUA, DISCARD = 1, 2, 4
SIZE = 4 << 20
Entry = tuple[int, int, bytes | int]


def write(sector: int, text: bytes, flags: int = 0) -> Entry:
    return flags, sector, text.ljust(SECTOR, b"\0")


FLUSHED: Entry = (FLUSH, 0, b"")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(bytes(SIZE))
    return path


def make_log(folder: Path, entries: Sequence[Entry], promised: int | None = None) -> Path:
    """A log as QEMU writes it; its superblock comes with a flush."""
    body, count = b"", 0
    for number, (flags, sector, data) in enumerate(entries, 1):
        size = data if isinstance(data, int) else len(data)
        body += struct.pack("<QQQQ", sector, size // SECTOR, flags, 0).ljust(SECTOR, b"\0")
        body += b"" if isinstance(data, int) else data
        count = number if flags & FLUSH else count
    count = count if promised is None else promised
    start = struct.pack("<QQQI", 0x6A736677736872, 1, count, SECTOR) if count else b""
    path = folder / "kfs1.log"
    path.write_bytes(start.ljust(SECTOR, b"\0") + body)
    return path


def text_at(image: Path, sector: int) -> bytes:
    return image.read_bytes()[sector * SECTOR :][:SECTOR].rstrip(b"\0")


def test_what_came_before_the_last_flush_is_kept(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), FLUSHED, write(2, b"two"), FLUSHED, write(3, b"three")])
    replay(log, image, only_flushed=True)
    assert [text_at(image, sector) for sector in (1, 2, 3)] == [b"one", b"two", b""]


def test_or_all_that_was_written_is(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), FLUSHED, write(3, b"three")])
    replay(log, image, only_flushed=False)
    assert [text_at(image, sector) for sector in (1, 3)] == [b"one", b"three"]


def test_what_was_written_through_the_cache_is_kept_without_a_flush(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), write(2, b"two", FUA)])
    replay(log, image, only_flushed=True)
    assert [text_at(image, sector) for sector in (1, 2)] == [b"", b"two"]


def test_later_writes_win(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), write(1, b"two"), FLUSHED, write(1, b"lost")])
    replay(log, image, only_flushed=True)
    assert text_at(image, 1) == b"two"


def test_discards_and_zeros_empty_the_image(tmp_path: Path, image: Path) -> None:
    image.write_bytes(b"\xff" * SIZE)
    zeros: Entry = (0, 2048, bytes(1 << 20))
    log = make_log(tmp_path, [(DISCARD, 4096, 1 << 20), zeros, FLUSHED])
    blocks = image.stat().st_blocks
    replay(log, image, only_flushed=True)
    expected = b"\xff" * (1 << 20) + bytes(2 << 20) + b"\xff" * (1 << 20)
    assert image.read_bytes() == expected
    assert image.stat().st_size == SIZE
    if os.statvfs(tmp_path).f_frsize == 4096:
        assert image.stat().st_blocks <= blocks


def test_data_larger_than_what_is_copied_at_once(tmp_path: Path, image: Path) -> None:
    data = bytes(range(256)) * (3 << 12)
    replay(make_log(tmp_path, [(0, 1, data), FLUSHED]), image, only_flushed=True)
    assert image.read_bytes()[SECTOR : SECTOR + len(data)] == data


@pytest.mark.parametrize("only_flushed", [True, False])
def test_a_disk_that_nothing_was_written_to_keeps_what_it_had(
    tmp_path: Path, image: Path, only_flushed: bool
) -> None:
    (tmp_path / "kfs1.log").touch()
    replay(tmp_path / "kfs1.log", image, only_flushed=only_flushed)
    assert image.read_bytes() == bytes(SIZE)


def test_an_entry_that_was_not_finished_is_left_out(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), FLUSHED, write(2, b"two")])
    os.truncate(log, log.stat().st_size - 100)
    replay(log, image, only_flushed=False)
    assert [text_at(image, sector) for sector in (1, 2)] == [b"one", b""]


def test_an_entry_that_is_not_there_yet_ends_the_log(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), FLUSHED])
    os.truncate(log, log.stat().st_size + 10 * SECTOR)
    replay(log, image, only_flushed=False)
    assert text_at(image, 1) == b"one"


def test_a_damaged_log_is_no_result(tmp_path: Path, image: Path) -> None:
    log = make_log(tmp_path, [write(1, b"one"), FLUSHED], promised=5)
    with pytest.raises(InfrastructureError, match="ends at entry 2 of 5"):
        replay(log, image, only_flushed=True)
