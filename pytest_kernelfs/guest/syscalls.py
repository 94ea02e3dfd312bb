"""mount(2) and umount2(2), called directly: the kernel's own answer is what is measured and reported."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY = 1
MNT_FORCE = 1
MNT_DETACH = 2

# CDLL releases the interpreter's lock during a call, so that calls in threads run side by side.
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fstype: str, flags: int = 0, options: str = "") -> None:
    """Mount, or raise OSError with the kernel's errno."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype),
        ctypes.c_ulong(flags),
        os.fsencode(options) if options else None,
    )
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def umount(target: str, flags: int = 0) -> None:
    """Unmount, or raise OSError with the kernel's errno."""
    if _libc.umount2(os.fsencode(target), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def sync_file_system(path: str) -> None:
    """syncfs(2) on the file system that holds ``path``."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(handle):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(handle)
