"""Reading and writing devices past the page cache: functions for ``vm.call``."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time

BLOCK = 4096


def write_direct(path: str, text: bytes, size: int = 4096, start: int = 0) -> tuple[int, float]:
    """Fill ``size`` bytes from ``start`` on with blocks that begin with a text: (errno, seconds)."""
    step = min(size, 65536)
    block = mmap.mmap(-1, step)
    for offset in range(0, step, BLOCK):
        block[offset : offset + len(text)] = text
    handle = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    begin = time.monotonic()
    try:
        for offset in range(start, start + size, step):
            os.pwrite(handle, block, offset)
    except OSError as error:
        return error.errno or 0, time.monotonic() - begin
    finally:
        os.close(handle)
    return 0, time.monotonic() - begin


def read_direct(path: str, start: int = 0) -> tuple[int, bytes, float]:
    """Read a block: (errno, the text that it begins with, seconds)."""
    block = mmap.mmap(-1, BLOCK)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    begin = time.monotonic()
    try:
        os.preadv(handle, [block], start)
    except OSError as error:
        return error.errno or 0, b"", time.monotonic() - begin
    finally:
        os.close(handle)
    return 0, block[:64].split(b"\0")[0], time.monotonic() - begin


def discard(path: str, size: int) -> None:
    """BLKDISCARD the first bytes of a device, and flush."""
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.ioctl(handle, 0x1277, struct.pack("<QQ", 0, size))
        os.fsync(handle)
    finally:
        os.close(handle)
