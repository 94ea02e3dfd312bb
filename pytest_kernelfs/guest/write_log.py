"""The log that the device-mapper target log-writes keeps: reading it, and replaying it up to a mark.

The format is that of drivers/md/dm-log-writes.c: a super block, then entries of one sector each, in
sectors of the logged device's size; the data of a write follows its entry.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from pytest_kernelfs.guest import kmsg
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_MAGIC = 0x6A736677736872
_VERSION = 1
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_DISCARD, _MARK = 4, 8
# linux/fs.h
_BLKZEROOUT = 0x127F
_BLKGETSIZE64 = 0x80081272
# linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_PUNCH_HOLE = 3

_BLOCK = 4096
_CHUNK = 1 << 20
_POLL_S = 0.005
# The kernel says once that a log is full, perhaps long ago; a mark that is late makes that matter.
_FULL = "Ran out of space on the logdev"
_FULL_AFTER_S = 1.0

_libc = ctypes.CDLL(None, use_errno=True)


class Entry(NamedTuple):
    """One entry: numbers in bytes, ``data`` the place of its data in the log, ``mark`` "" for no mark."""

    flags: int
    start: int
    size: int
    data: int
    mark: str


class Log:
    """A log, read past the page cache, which does not see what the kernel writes to the device itself."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self._buffer = mmap.mmap(-1, _CHUNK)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._buffer.close()

    def entries(self, seen: int = 0, offset: int = 0) -> Iterator[tuple[int, int, Entry]]:
        """The entries there are by now: (its number from 1 on, where the next begins, the entry).

        ``seen`` and ``offset`` are the first two of the last entry that needs no reading again.
        """
        count, sector = self._super()
        number, offset = seen, offset or sector
        while number < count:
            number += 1
            entry = self._entry(offset, sector)
            offset = entry.data if entry.flags & _DISCARD else entry.data + entry.size
            yield number, offset, entry

    def read(self, offset: int, size: int) -> bytes:
        first = offset // _BLOCK * _BLOCK
        view = memoryview(self._buffer)[: -(-(offset + size - first) // _BLOCK) * _BLOCK]
        with view:
            got = os.preadv(self._file, [view], first)
            part = bytes(view[offset - first : offset - first + size])
        if got < offset - first + size:
            raise GuestError(f"the log on {self._path} ends in the middle of an entry, at byte {offset}")
        return part

    def _super(self) -> tuple[int, int]:
        magic, version, count, sector = _SUPER.unpack(self.read(0, _SUPER.size))
        if magic != _MAGIC or version != _VERSION:
            raise GuestError(
                f"{self._path} holds no log of writes yet: it begins when the first mark, or the first write "
                "with FUA, is logged"
            )
        return count, sector

    def _entry(self, offset: int, sector: int) -> Entry:
        raw = self.read(offset, sector)
        start, length, flags, extra = _ENTRY.unpack_from(raw)
        mark = raw[_ENTRY.size : _ENTRY.size + extra].split(b"\0", 1)[0].decode("utf-8", "replace")
        size = length * sector
        return Entry(flags, start * sector, size, offset + sector, mark if flags & _MARK else "")


def wait_for_mark(path: str, mark: str, seen: int, offset: int, timeout: float) -> tuple[int, int]:
    """Wait until a mark is on the log; gives its number and where the next entry begins.

    ``seen`` and ``offset`` are what the last call gave, or zeros.
    """
    waiting = Patience(timeout, _POLL_S)
    start = time.monotonic()
    while True:
        why = "the kernel does not say why"
        try:
            with Log(path) as log:
                for number, following, entry in log.entries(seen, offset):
                    seen, offset = number, following
                    if entry.mark == mark:
                        return number, following
        except GuestError as error:
            # Nothing was logged yet; the mark will begin the log.
            why = str(error)
        late = timeout - waiting.left > _FULL_AFTER_S
        full = late and any(_FULL in record["text"] for record in kmsg.read())
        if full or not waiting.wait():
            raise GuestError(
                f"the mark {mark!r} did not reach the log on {path} within {time.monotonic() - start:.1f} s; "
                f"{'the log is full' if full else why}"
            )


def marks(path: str) -> list[str]:
    """The marks of a log, in order."""
    with Log(path) as log:
        return [entry.mark for _, _, entry in log.entries() if entry.mark]


def replay(path: str, target: str, mark: str, blank: bool = True) -> tuple[int, int]:
    """Write to the device ``target`` what was logged before a mark; with ``blank``, on zeros.

    Gives the entries and the bytes that were replayed.
    """
    with Log(path) as log:
        last = _find(log, path, mark)
        device = os.open(target, os.O_WRONLY)
        try:
            if blank:
                _zero(device, 0, _size_of(device))
            written = 0
            for number, _, entry in log.entries():
                if number >= last:
                    break
                written += _apply(log, device, entry)
            os.fsync(device)
        finally:
            os.close(device)
    return last - 1, written


def _find(log: Log, path: str, mark: str) -> int:
    seen = []
    for number, _, entry in log.entries():
        if entry.mark == mark:
            return number
        if entry.mark:
            seen.append(entry.mark)
    raise GuestError(f"no mark {mark!r} in the log on {path}; its marks are: {', '.join(seen) or 'none'}")


def _apply(log: Log, device: int, entry: Entry) -> int:
    if entry.start + entry.size > _size_of(device):
        raise GuestError("the device to replay onto is too small")
    if entry.flags & _DISCARD:
        _zero(device, entry.start, entry.size)
        return 0
    # One block less than the buffer holds: the data need not begin at a block of the log.
    step = _CHUNK - _BLOCK
    for done in range(0, entry.size, step):
        part = log.read(entry.data + done, min(step, entry.size - done))
        if os.pwrite(device, part, entry.start + done) != len(part):
            raise GuestError("the device to replay onto took only a part of a write")
    return entry.size


def _zero(device: int, start: int, size: int) -> None:
    """Have a part of a device read as zeros: given back to what is below if that can be, else written."""
    if size and _libc.fallocate(device, _PUNCH_HOLE, ctypes.c_int64(start), ctypes.c_int64(size)):
        fcntl.ioctl(device, _BLKZEROOUT, struct.pack("<QQ", start, size))


def _size_of(device: int) -> int:
    size: int = struct.unpack("<Q", fcntl.ioctl(device, _BLKGETSIZE64, bytes(8)))[0]
    return size
