"""The mount API of fsopen(2), fsconfig(2), fsmount(2) and move_mount(2), and what the kernel logs there."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from pytest_kernelfs.guest import syscalls

# The same numbers on every architecture since Linux 5.2 (asm-generic/unistd.h), but for alpha.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
# linux/mount.h
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOEXEC = 1
_FROM_EMPTY_PATH = 4
_AT_FDCWD = -100
# Flags of mount(2) that fsmount(2) takes in its own way; the others belong to the file system.
_ATTRIBUTES = {1: 1, 2: 2, 4: 4, 8: 8, 1024: 0x10, 1 << 24: 0x20, 2048: 0x80}
_SUPERBLOCK_FLAGS = {1: "ro", 16: "sync", 128: "dirsync", 1 << 25: "lazytime"}
# fsconfig(2) takes no longer text, its end included.
MOST_VALUE = 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Context:
    """A file system that is being put together: parameters first, then ``mount``; use it in a ``with``."""

    def __init__(self, fstype: str) -> None:
        """Raises: OSError, with ENOSYS on a kernel without this API, ENODEV without the file system."""
        self._handle = _call(_FSOPEN, os.fsencode(fstype), _CLOEXEC)

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def set(self, key: str, value: str | None = None) -> None:
        """Set one parameter, a flag without ``value``. Raises: OSError."""
        command = _SET_FLAG if value is None else _SET_STRING
        text = None if value is None else os.fsencode(value)
        _call(_FSCONFIG, self._handle, command, os.fsencode(key), text, 0)

    def mount(self, target: str, flags: int = 0) -> None:
        """Make the file system and mount it, with flags as for mount(2). Raises: OSError."""
        for flag, key in _SUPERBLOCK_FLAGS.items():
            if flags & flag:
                self.set(key)
        _call(_FSCONFIG, self._handle, _CREATE, None, None, 0)
        attributes = sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)
        mounted = _call(_FSMOUNT, self._handle, _CLOEXEC, attributes)
        try:
            _call(_MOVE_MOUNT, mounted, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH)
        finally:
            os.close(mounted)

    def log(self) -> list[str]:
        """What the kernel has said about it since it was last asked: lines such as "e overlay: …"."""
        lines = []
        while True:
            try:
                lines.append(os.read(self._handle, 4096).decode("utf-8", "replace").strip())
            except OSError:
                return lines


def takes(fstype: str, *parameters: tuple[str, str]) -> bool:
    """Whether the file system itself reads these parameters, each a key and a value.

    One that was not written for this API is given all parameters as one text in the end, and so
    refuses none of them here: what it accepts proves nothing.
    """
    try:
        with Context(fstype) as context:
            if _accepted(context, "kernelfs-is-no-parameter", "x"):
                return False
            return all(_accepted(context, key, value) for key, value in parameters)
    except OSError:
        return False


def _accepted(context: Context, key: str, value: str) -> bool:
    try:
        context.set(key, value)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def plain_options(options: str) -> tuple[int, list[tuple[str, str | None]]]:
    """Options as for mount(8): the flags among them, and the parameters for the file system."""
    flags, left = syscalls.split_options(options)
    pairs = [option.partition("=") for option in left.split(",") if option]
    return flags, [(key, value if equals else None) for key, equals, value in pairs]


def _call(number: int, *arguments: Any) -> int:
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
