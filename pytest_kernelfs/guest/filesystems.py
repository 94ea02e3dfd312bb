"""What can be done to a mounted file system: freeze it, thaw it, shut it down, unmount it anyhow."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from pytest_kernelfs.guest import files, mounts, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

# linux/fs.h; the last has the same number in XFS, ext4 and f2fs.
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878
_GOING_DOWN = 0x8004587D

# What becomes of what is in memory only: all of it is written first, the log alone, or nothing.
SHUTDOWNS = {"all": 0, "log": 1, "nothing": 2}


def kinds() -> set[str]:
    """The types of file systems that the kernel can mount without loading anything."""
    return {line.split()[-1] for line in files.text("/proc/filesystems").splitlines()}


def known(fstype: str) -> bool:
    """Whether the kernel can mount file systems of this type without loading anything."""
    return fstype in kinds()


def freeze(path: str) -> None:
    """Freeze the file system mounted at ``path``: FIFREEZE."""
    _demand_mount(path)
    try:
        _ioctl(path, _FIFREEZE, b"\0" * 4)
    except OSError as error:
        reasons = {errno.EBUSY: "it is frozen already", errno.EOPNOTSUPP: "it cannot be frozen"}
        raise GuestError(
            f"freezing {path}: {reasons.get(error.errno or 0, error.strerror or str(error))}"
        ) from None


def thaw(path: str) -> bool:
    """Thaw it: FITHAW. False if it was not frozen."""
    _demand_mount(path)
    try:
        _ioctl(path, _FITHAW, b"\0" * 4)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY):
            return False
        raise GuestError(f"thawing {path}: {error.strerror}") from None
    return True


def thaw_wherever(path: str, source: str, fstype: str) -> None:
    """Thaw it even if it was unmounted since.

    The kernel keeps a file system that was unmounted while frozen, until it is mounted again and thawed.
    """
    if os.path.ismount(path):
        thaw(path)
        return
    try:
        syscalls.mount(source, path, fstype)
    except OSError:
        return  # the device is gone or holds something else, and the frozen file system with it
    thaw(path)
    mounts.umount(path)


def shutdown(path: str, saved: str) -> None:
    """Let the file system fail all that comes; ``saved`` is a key of SHUTDOWNS."""
    _demand_mount(path)
    try:
        _ioctl(path, _GOING_DOWN, struct.pack("I", SHUTDOWNS[saved]))
    except OSError as error:
        reasons = {errno.ENOTTY: "this kernel cannot shut down a file system of this kind"}
        raise GuestError(
            f"shutting down {path}: {reasons.get(error.errno or 0, error.strerror or str(error))}"
        ) from None


def umount(path: str) -> None:
    """Unmount, thawing it first should it be frozen; what is not mounted is no error."""
    if os.path.ismount(path):
        thaw(path)
    # One that an error shut down cannot even be looked at: then it does not look like a mount, but is one.
    mounts.umount(path)


def _demand_mount(path: str) -> None:
    if not os.path.ismount(path):
        raise GuestError(f"nothing is mounted at {path}")


def _ioctl(path: str, request: int, argument: bytes) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(folder, request, argument)
    finally:
        os.close(folder)
