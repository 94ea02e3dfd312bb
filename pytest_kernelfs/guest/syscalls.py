"""mount(2), umount2(2) and their like, called directly: what counts is the kernel's own answer."""

from __future__ import annotations

import ctypes
import os
import time
from typing import NoReturn

# linux/mount.h: options that mount(8) turns into flags, with the flag and whether the option sets it.
MOUNT_FLAGS = {
    "ro": (1, True),
    "rw": (1, False),
    "nosuid": (2, True),
    "suid": (2, False),
    "nodev": (4, True),
    "dev": (4, False),
    "noexec": (8, True),
    "exec": (8, False),
    "sync": (16, True),
    "async": (16, False),
    "dirsync": (128, True),
    "noatime": (1024, True),
    "atime": (1024, False),
    "nodiratime": (2048, True),
    "diratime": (2048, False),
    "relatime": (1 << 21, True),
    "norelatime": (1 << 21, False),
    "strictatime": (1 << 24, True),
    "lazytime": (1 << 25, True),
    "nolazytime": (1 << 25, False),
}

REMOUNT = 32
# linux/reboot.h
_POWER_OFF = 0x4321FEDC

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


def split_options(options: str) -> tuple[int, str]:
    """The flags that are among mount options, and the options that the file system gets to see."""
    flags = 0
    left = []
    for option in options.split(","):
        flag, on = MOUNT_FLAGS.get(option, (0, False))
        flags = flags | flag if on else flags & ~flag
        if not flag and option not in ("", "defaults"):
            left.append(option)
    return flags, ",".join(left)


def umount(target: str, flags: int = 0) -> None:
    """Unmount, or raise OSError with the kernel's errno."""
    if _libc.umount2(os.fsencode(target), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def power_off() -> NoReturn:
    """Switch the machine off at once: reboot(2), or wait for ever where that is refused."""
    os.sync()
    _libc.reboot(ctypes.c_int(_POWER_OFF))
    while True:
        time.sleep(3600)


def quotactl(command: int, device: str, number: int, entry: ctypes.Structure) -> None:
    """quotactl(2), or raise OSError with the kernel's errno."""
    result = _libc.quotactl(
        ctypes.c_int(command), os.fsencode(device), ctypes.c_int(number), ctypes.byref(entry)
    )
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), device)


def sync_file_system(path: str) -> None:
    """syncfs(2) on the file system that holds ``path``."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(handle):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(handle)
