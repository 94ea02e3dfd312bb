"""Disk quotas through quotactl(2), and the project that files belong to."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from pytest_kernelfs.guest import syscalls
from pytest_kernelfs.guest.dispatch import GuestError

# linux/quota.h and linux/fs.h. XFS answers the general commands, too.
_GETQUOTA = 0x800007
_SETQUOTA = 0x800008
_GETNEXTQUOTA = 0x800009
_TYPES = {"user": 0, "group": 1, "project": 2}
_LIMITS_VALID = 1 | 4  # QIF_BLIMITS, QIF_ILIMITS
_LIMIT_UNIT = 1024
_FSGETXATTR = 0x801C581F
_FSSETXATTR = 0x401C5820
_FSXATTR = struct.Struct("5I8s")
_PROJECT_INHERIT = 0x200


class _Dqblk(ctypes.Structure):
    """struct if_nextdqblk, which begins with all of struct if_dqblk."""

    _fields_ = [
        ("blocks_hard", ctypes.c_uint64),
        ("blocks_soft", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("inodes_hard", ctypes.c_uint64),
        ("inodes_soft", ctypes.c_uint64),
        ("inodes", ctypes.c_uint64),
        ("block_time", ctypes.c_uint64),
        ("inode_time", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
    ]


def set_limits(device: str, kind: str, number: int, limits: dict[str, int]) -> None:
    """Change the limits that are named: ``blocks_…`` in bytes, ``inodes_…``; 0 means none."""
    entry = _get(device, kind, number) or _Dqblk()
    for name, value in limits.items():
        setattr(entry, name, value // _LIMIT_UNIT if name.startswith("blocks") else value)
    entry.valid = _LIMITS_VALID
    try:
        _quotactl(_SETQUOTA, device, kind, number, entry)
    except OSError as error:
        raise GuestError(_complaint("setting limits", device, kind, error)) from None


def usage(device: str, kind: str, number: int) -> dict[str, int]:
    """What is used and allowed, the space in bytes; all 0 for an id that has nothing."""
    entry = _get(device, kind, number)
    return _plain(number, entry or _Dqblk())


def report(device: str, kind: str) -> list[dict[str, int]]:
    """The same for every id that the file system knows."""
    found: list[dict[str, int]] = []
    number = 0
    while True:
        entry = _Dqblk()
        try:
            _quotactl(_GETNEXTQUOTA, device, kind, number, entry)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH) and (found or error.errno == errno.ENOENT):
                return found
            raise GuestError(_complaint("reading", device, kind, error)) from None
        found.append(_plain(entry.id, entry))
        number = entry.id + 1
        if number > 0xFFFFFFFE:
            return found


def set_project(path: str, number: int) -> None:
    """Put a folder, made if it is not there, into a project, with all below it and all that will be."""
    os.makedirs(path, exist_ok=True)
    _set_project(path, number)
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            _set_project(os.path.join(folder, name), number)


def _set_project(path: str, number: int) -> None:
    mode = os.lstat(path).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        return  # links and devices cannot be opened for this
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        raw = fcntl.ioctl(handle, _FSGETXATTR, b"\0" * _FSXATTR.size)
        flags, extent_size, extents, _, cow_size, rest = _FSXATTR.unpack(raw)
        if stat.S_ISDIR(mode):
            flags |= _PROJECT_INHERIT
        fcntl.ioctl(handle, _FSSETXATTR, _FSXATTR.pack(flags, extent_size, extents, number, cow_size, rest))
    except OSError as error:
        raise GuestError(f"putting {path} into project {number}: {error.strerror}") from None
    finally:
        os.close(handle)


def _get(device: str, kind: str, number: int) -> _Dqblk | None:
    entry = _Dqblk()
    try:
        _quotactl(_GETQUOTA, device, kind, number, entry)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise GuestError(_complaint("reading", device, kind, error)) from None
    return entry


def _quotactl(command: int, device: str, kind: str, number: int, entry: _Dqblk) -> None:
    syscalls.quotactl(command << 8 | _TYPES[kind], device, number, entry)


def _plain(number: int, entry: _Dqblk) -> dict[str, int]:
    return {
        "id": number,
        "bytes": entry.bytes,
        "inodes": entry.inodes,
        "blocks_soft": entry.blocks_soft * _LIMIT_UNIT,
        "blocks_hard": entry.blocks_hard * _LIMIT_UNIT,
        "inodes_soft": entry.inodes_soft,
        "inodes_hard": entry.inodes_hard,
    }


def _complaint(what: str, device: str, kind: str, error: OSError) -> str:
    if error.errno in (errno.ESRCH, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        return (
            f"{what} of {kind} quotas on {device}: {error.strerror}; "
            f"is it mounted, and made with quota=[{kind!r}]?"
        )
    return f"{what} of {kind} quotas on {device}: {error.strerror}"
