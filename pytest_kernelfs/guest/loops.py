"""Whose loop devices are, on a machine that others use too: told by a word in the name of what is behind."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from collections.abc import Iterator

from pytest_kernelfs.guest import journal

# linux/loop.h
_GET_STATUS = 0x4C05
_CLEAR = 0x4C01
_LONGEST_NAME = 63


class LoopInfo64(ctypes.Structure):
    """struct loop_info64 of linux/loop.h."""

    _fields_ = [
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("sizelimit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_char * 64),
        ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_char * 32),
        ("init", ctypes.c_uint64 * 2),
    ]


def info_of(path: str) -> LoopInfo64 | None:
    """What the kernel tells of a loop device; None if nothing is attached to it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        info = LoopInfo64()
        fcntl.ioctl(handle, _GET_STATUS, info)
        return info
    except OSError:
        return None
    finally:
        os.close(handle)


def clear(path: str) -> None:
    """Detach a loop device; one that has nothing attached is no error."""
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, _CLEAR)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EBUSY):
            raise
    finally:
        os.close(handle)


def file_name(backing: str) -> bytes:
    """What the kernel is to call the file behind a loop device: its path, or the end of that.

    On a machine that others use too, the journal's word goes before it.
    """
    words = journal.noted("word")
    mark = f"{words.pop()}:".encode() if words else b""
    return mark + os.fsencode(backing)[-(_LONGEST_NAME - len(mark)) :]


def same(one: LoopInfo64 | None, other: LoopInfo64 | None) -> bool:
    """Whether both tell of one attachment: a device that was free meanwhile may be another's."""
    return None not in (one, other) and _identity(one) == _identity(other)


def _identity(info: LoopInfo64 | None) -> tuple[int, int, bytes]:
    assert info is not None
    return info.device, info.inode, info.file_name


def ours(entries: list[journal.Entry], mounts: str | None = "/proc/self/mountinfo") -> Iterator[str]:
    """The paths that ``ours_known`` gives."""
    return (path for path, _ in ours_known(entries, mounts))


def ours_known(
    entries: list[journal.Entry], mounts: str | None = "/proc/self/mountinfo"
) -> Iterator[tuple[str, LoopInfo64]]:
    """The loop devices of the tests that kept this journal, each with what is attached to it now.

    Those that were attached through us, and those on file systems on such. Also those on whatever is mounted
    at the places of the tests and nowhere else, as ``mounts`` shows it; None for tests that are long gone:
    what is mounted now may be others'.
    """
    marks = tuple(f"{entry[1]}:".encode() for entry in entries if entry[0] == "word")
    devices: set[int] = set()
    if mounts is not None:
        devices = {entry[2] for entry in entries if entry[0] == "place"}
        devices |= _mounted_at([entry[1] for entry in entries if entry[0] == "place"], mounts)
    there = dict(_attached())
    while True:
        more = [
            path
            for path, info in there.items()
            if (marks and info.file_name.startswith(marks)) or info.device in devices
        ]
        if not more:
            return
        for path in more:
            devices.add(os.stat(path).st_rdev)
            yield path, there.pop(path)


def _mounted_at(places: list[str], mounts: str) -> set[int]:
    """The numbers of the file systems mounted there and below; none if that view of them has gone.

    One that is mounted elsewhere, too, is the machine's: a test has bound a part of it.
    """
    found: set[int] = set()
    elsewhere: set[int] = set()
    for number, point in mount_points(mounts):
        inside = any((point + "/").startswith(place + "/") for place in places)
        (found if inside else elsewhere).add(number)
    return found - elsewhere


def mount_points(mounts: str) -> list[tuple[int, str]]:
    """The number of each file system and where it is mounted, the latest last; none if that view has gone."""
    return [(number, point) for number, point, _fstype in mounted(mounts)]


def mounted(mounts: str) -> list[tuple[int, str, str]]:
    """The same, each with its type."""
    try:
        with open(mounts, errors="surrogateescape") as file:
            lines = [line.partition(" - ")[::2] for line in file]
    except OSError:
        return []
    fields = [(head.split(" ")[2:5], tail.partition(" ")[0]) for head, tail in lines]
    return [
        (os.makedev(*map(int, number.split(":"))), _plain(point), fstype)
        for (number, _root, point), fstype in fields
    ]


def _plain(point: str) -> str:
    """Spaces and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point)


def _attached() -> Iterator[tuple[str, LoopInfo64]]:
    for name in sorted(os.listdir("/sys/block")):
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop/backing_file"):
            info = info_of("/dev/" + name)
            if info is not None:
                yield "/dev/" + name, info
