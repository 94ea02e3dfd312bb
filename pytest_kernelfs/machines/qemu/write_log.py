"""The log that QEMU keeps of the writes to a disk, and what of them survives a power cut.

QEMU's block filter ``blklogwrites`` appends an entry for each write that has
been done, and one for each flush. The format is that of the kernel's
Documentation/admin-guide/device-mapper/log-writes.rst: a superblock, then for
each entry a sector that describes it and the sectors of its data.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import InfrastructureError

SECTOR = 512
"""Bytes; requests are aligned to it, so it has to be the smallest sector of any disk."""
_SUPER = struct.Struct("<QQQI")
_MAGIC = 0x6A736677736872
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
_KNOWN = _FLUSH | _FUA | _DISCARD | _MARK
_CHUNK = 1 << 20
# linux/falloc.h
_PUNCH_HOLE_KEEP_SIZE = 2 | 1


@dataclass(frozen=True)
class Entry:
    """One entry: ``offset`` and ``size`` of what was written to the disk, ``data`` where the log has it."""

    flags: int
    offset: int
    size: int
    data: int


def replay(log: Path, image: Path, *, only_flushed: bool) -> None:
    """Do to ``image`` the writes of a log: all, or those that were flushed.

    Flushed is what came before the last flush, and what was written through the cache (FUA).

    Raises: InfrastructureError if the log is damaged, or the image cannot be written.
    """
    source, target = os.open(log, os.O_RDONLY | os.O_CLOEXEC), os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        entries = list(_entries(source, log))
        flushes = [number for number, entry in enumerate(entries) if entry.flags & _FLUSH]
        settled = flushes[-1] if flushes and only_flushed else 0
        for number, entry in enumerate(entries):
            if number < settled or not only_flushed or entry.flags & _FUA:
                _apply(entry, source, target)
    except OSError as error:
        raise InfrastructureError(f"cannot write what a disk kept to {image}: {error.strerror}") from error
    finally:
        os.close(source)
        os.close(target)


def _entries(log: int, path: Path) -> Iterator[Entry]:
    """The entries up to the first that was not whole when the power was cut."""
    end = os.fstat(log).st_size
    position, count = SECTOR, 0
    while position + SECTOR <= end:
        sector, sectors, flags, _ = _ENTRY.unpack(os.pread(log, _ENTRY.size, position))
        size = sectors * SECTOR
        data = 0 if flags & _DISCARD else size
        if flags & ~_KNOWN or not (flags or sectors) or position + SECTOR + data > end:
            break
        yield Entry(flags, sector * SECTOR, size, position + SECTOR)
        position += SECTOR + data
        count += 1
    promised = _promised(log)
    if count < promised:
        raise InfrastructureError(
            f"QEMU's log of a disk's writes ends at entry {count} of {promised} ({path.name}), so what the "
            "disk kept cannot be told; run the test again, and use QEMU 7.2.9, 8.2.1 or newer"
        )


def _promised(log: int) -> int:
    """The number of entries up to the last flush, from the superblock, which is first written then."""
    raw = os.pread(log, _SUPER.size, 0)
    if len(raw) < _SUPER.size:
        return 0
    magic, _, count, _ = _SUPER.unpack(raw)
    return int(count) if magic == _MAGIC else 0


def _apply(entry: Entry, log: int, image: int) -> None:
    if entry.flags & _DISCARD:
        _punch(image, entry.offset, entry.size)
        return
    done = 0
    while done < entry.size:
        chunk = os.pread(log, min(_CHUNK, entry.size - done), entry.data + done)
        if chunk == bytes(len(chunk)):
            _punch(image, entry.offset + done, len(chunk))
        else:
            os.pwrite(image, chunk, entry.offset + done)
        done += len(chunk)


def _punch(image: int, offset: int, size: int) -> None:
    """Have a part of a file read as zeros and take no room, or just read as zeros."""
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if size and fallocate(image, _PUNCH_HOLE_KEEP_SIZE, offset, size):
        for start in range(offset, offset + size, _CHUNK):
            os.pwrite(image, bytes(min(_CHUNK, offset + size - start)), start)
