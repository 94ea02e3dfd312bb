"""Block devices: disks by serial number, loop devices by ioctl, and what reached a disk."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from pytest_kernelfs.guest import files, loops
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

# linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY = 1
_DIRECT_IO = 16
_POLL_S = 0.002

_MOUNTS = "/proc/self/mountinfo"
_SYS = "/sys"


class _LoopConfig(ctypes.Structure):
    _fields_ = [
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", loops.LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    ]


def find_disk(serial: str, size: int, timeout: float = 10.0) -> str:
    """The device path of the disk with that serial number, once it has that size in bytes."""
    if serial.startswith("/dev/"):
        return serial  # a loop device stands in for a disk, on a machine that is given none
    waiting = Patience(timeout, _POLL_S)
    while True:
        for name in os.listdir(_SYS + "/block"):
            if files.text(f"{_SYS}/block/{name}/serial") == serial and _size(name) == size:
                path = "/dev/" + name
                if os.path.exists(path):
                    return path
        if not waiting.wait():
            seen = ", ".join(sorted(os.listdir(_SYS + "/block"))) or "none"
            raise GuestError(f"no disk with serial {serial} and {size} bytes; block devices: {seen}")


def make_sparse(path: str, size: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(size)


def attach_loop(
    backing: str, read_only: bool = False, direct_io: bool = False, sector_size: int = 512
) -> str:
    """Attach a file or device to a free loop device; gives its path.

    LOOP_CTL_GET_FREE only proposes a number, another process may take it
    first: EBUSY from LOOP_CONFIGURE means try the next. A device that is
    not what was asked for is taken away again, because the kernel does not
    always say so: it goes without direct I/O where it cannot have it.
    """
    file = os.open(backing, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        while True:
            path = f"/dev/loop{_free_loop()}"
            if _configure(path, file, backing, read_only, direct_io, sector_size):
                problem = _loop_problem(path, backing, read_only, direct_io, sector_size)
                if problem:
                    detach_loop(path)
                    raise GuestError(f"cannot attach {backing} to {path}: {problem}")
                return path
    finally:
        os.close(file)


def _free_loop() -> int:
    try:
        control = os.open("/dev/loop-control", os.O_RDWR)
    except OSError as error:
        raise GuestError(f"no loop devices in this kernel (/dev/loop-control: {error.strerror})") from None
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def _configure(
    path: str, file: int, backing: str, read_only: bool, direct_io: bool, sector_size: int
) -> bool:
    config = _LoopConfig(fd=file, block_size=sector_size)
    config.info.flags = (_READ_ONLY if read_only else 0) | (_DIRECT_IO if direct_io else 0)
    config.info.file_name = loops.file_name(backing)
    loop = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(loop, _LOOP_CONFIGURE, config)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise GuestError(
            f"cannot attach {backing} to {path}: {error.strerror}{_hint(error, sector_size)}"
        ) from None
    finally:
        os.close(loop)
    return True


def _hint(error: OSError, sector_size: int) -> str:
    page = os.sysconf("SC_PAGE_SIZE")
    if error.errno != errno.EINVAL or sector_size <= page:
        return ""
    return f"; this kernel takes no sectors of {sector_size} bytes, more than a page of {page}"


def _loop_problem(path: str, backing: str, read_only: bool, direct_io: bool, sector_size: int) -> str:
    """What a loop device is not, that was asked for; "" if it is all that."""
    folder = _SYS + "/block/" + os.path.basename(path)
    # Old kernels (5.10) take larger sectors below for granted, and fail the requests later.
    if direct_io and (files.text(folder + "/loop/dio") != "1" or _sectors_below(backing) > sector_size):
        return (
            f"this kernel does no direct I/O with sectors of {sector_size} bytes to {_what_holds(backing)}; "
            "do without direct_io, or give it another file system or a larger sector_size"
        )
    sectors = files.text(folder + "/queue/logical_block_size")
    if sectors != str(sector_size):
        return f"its sectors have {sectors} bytes, not {sector_size}"
    if read_only and files.text(folder + "/ro") != "1":
        return "it is not read-only"
    return ""


def _what_holds(backing: str) -> str:
    """For people: the device itself with the size of its sectors, or the file system a file lies on."""
    sectors = _sectors_below(backing)
    below = f"with sectors of {sectors} bytes" if sectors else "in memory"
    if os.stat(backing).st_rdev:
        return f"the device {backing} {below}"
    return f"a file on {_mount_of(backing)[0]} {below}"


def _sectors_below(backing: str) -> int:
    """The size in bytes of the sectors that a device has, or that which a file lies on; 0 in memory."""
    return int(files.text(f"{_SYS}/dev/block/{_device_number(backing)}/queue/logical_block_size") or 0)


def _device_number(path: str) -> str:
    """That of a device, or of the one below the file system that holds ``path``; of no device in memory.

    Files of btrfs have numbers of their own, which are no device's.
    """
    number = _number(path)
    if not os.path.exists(f"{_SYS}/dev/block/{number}"):
        source = _mount_of(path)[1]
        if source.startswith("/dev/") and os.path.exists(source):
            return _number(source)
    return number


def _number(path: str) -> str:
    status = os.stat(path)
    device = status.st_rdev or status.st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def _mount_of(path: str) -> tuple[str, str]:
    """The type of the file system that holds ``path``, and what it was mounted from."""
    place = os.path.realpath(path) + "/"
    point, found = "", ("", "")
    with open(_MOUNTS, errors="replace") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            other = head.split()[4]
            # Of two at the same place the later one hides the other.
            if place.startswith(other.rstrip("/") + "/") and len(other) >= len(point):
                fstype, source = tail.split()[:2]
                point, found = other, (fstype, source)
    return found


def detach_loop(path: str, timeout: float = 5.0) -> None:
    """Detach and wait until it is really free: the kernel accepts the request while it is still in use."""
    loop = os.open(path, os.O_RDWR)
    try:
        fcntl.ioctl(loop, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(loop)
    backing = f"{_SYS}/block/{os.path.basename(path)}/loop/backing_file"
    waiting = Patience(timeout, _POLL_S)
    while os.path.exists(backing):
        if not waiting.wait():
            raise GuestError(f"{path} is still in use {timeout:g} s after it was detached")


def disk_below(path: str) -> str:
    """The name of the block device below the file system that holds ``path``, following loops; "" if none."""
    number = _device_number(path)
    for _ in range(8):
        name = os.path.basename(os.path.realpath(f"{_SYS}/dev/block/{number}"))
        if not os.path.exists(_SYS + "/block/" + name):
            return ""
        backing = files.text(f"{_SYS}/block/{name}/loop/backing_file")
        if not backing or not os.path.exists(backing):
            return name
        number = _device_number(backing)
        if not os.path.exists(f"{_SYS}/dev/block/{number}"):
            return name
    return ""


def bytes_written(name: str) -> int:
    """Bytes written to a block device since it appeared; the unit of its statistics is 512 bytes."""
    return int(files.text(f"{_SYS}/block/{name}/stat").split()[6]) * 512


def _size(name: str) -> int:
    return int(files.text(f"{_SYS}/block/{name}/size") or 0) * 512
