"""Device-mapper, spoken to through its ioctl: to run dmsetup takes ten times as long."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from pytest_kernelfs.guest import journal, kmsg
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

# linux/dm-ioctl.h: struct dm_ioctl, struct dm_target_spec, the commands and their flags.
_HEADER = struct.Struct("<3I3Ii3IQ128s129s7x")
_TARGET = struct.Struct("<QQiI16s")
_MESSAGE = struct.Struct("<Q")
_REQUEST = 0xC138FD00
_DEV_CREATE, _DEV_REMOVE, _DEV_SUSPEND, _DEV_STATUS = 3, 4, 6, 7
_TABLE_LOAD, _TABLE_CLEAR, _TABLE_STATUS, _LIST_VERSIONS, _TARGET_MSG = 9, 10, 12, 13, 14
_SUSPEND = 1 << 1
_STATUS_TABLE = 1 << 4
_BUFFER_FULL = 1 << 8
_SKIP_LOCKFS = 1 << 10
_NOFLUSH = 1 << 11
_DATA_OUT = 1 << 16

_CONTROL = "/dev/mapper/control"
_ROOM = 16384
_POLL_S = 0.005


class _Answer(NamedTuple):
    flags: int
    targets: int
    opened: int
    device: int
    data: bytes


def available_targets() -> list[str]:
    """The names of the targets that the kernel knows by now; none if device-mapper is not loaded."""
    if not os.path.exists(_CONTROL):
        return []
    data = _ask(_LIST_VERSIONS).data
    names = []
    start = 0
    while True:
        (step,) = struct.unpack_from("<I", data, start)
        names.append(_text(data[start + 16 :]))
        if not step:
            return names
        start += step


def create(name: str, table: list[tuple[int, int, str, str]]) -> str:
    """Make a device and bring it into service; gives its path.

    A line of a table is (first sector, sectors, target, the target's arguments).
    """
    answer = _tried(f"create the device {name}", _DEV_CREATE, name)
    journal.note("dm", name)  # not before: another may have one of that name
    try:
        _load(name, table)
        _tried(f"start the device {name}", _DEV_SUSPEND, name)
    except GuestError:
        _ask(_DEV_REMOVE, name)
        raise
    path = f"/dev/dm-{os.minor(answer.device)}"
    if not os.path.exists(path):
        raise GuestError(f"the device {name} was made, but {path} is not there")
    return path


def create_beside(name: str, table: list[tuple[int, int, str, str]], other: str) -> str:
    """As ``create``, while the device ``other`` is suspended, its file system frozen."""
    suspend(other)
    try:
        return create(name, table)
    finally:
        resume(other)


def remove(name: str, patience: float = 2.0) -> bool:
    """Remove a device; False if it is gone already. What keeps it open has ``patience`` seconds to end."""
    if not os.path.exists(_CONTROL):
        return False
    waiting = Patience(patience, _POLL_S)
    while True:
        try:
            _ask(_DEV_REMOVE, name)
            return True
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            if error.errno != errno.EBUSY:
                raise GuestError(f"cannot remove the device {name}: {error.strerror}") from None
        if not waiting.wait():
            answer = _ask(_DEV_STATUS, name)
            raise GuestError(
                f"cannot remove the device {name}: it is still open {patience:g} s later "
                f"({answer.opened} times{_holders(answer.device)})"
            )


def swap(name: str, table: list[tuple[int, int, str, str]], missing_ok: bool = False) -> bool:
    """Put another table in place of the device's while it is in use.

    What waits in the device is not flushed, nor a file system on it frozen: it finds the change as it
    would find that of a real disk. A table that the kernel refuses leaves all as it was. False if
    there is no such device and ``missing_ok``.
    """
    if missing_ok and not exists(name):
        return False
    _load(name, table)
    try:
        _tried(f"suspend the device {name}", _DEV_SUSPEND, name, flags=_SUSPEND | _SKIP_LOCKFS | _NOFLUSH)
    except GuestError:
        _ask(_TABLE_CLEAR, name)
        raise
    finally:
        _tried(f"resume the device {name}", _DEV_SUSPEND, name)
    return True


def suspend(name: str, flush: bool = True, freeze: bool = True) -> None:
    """Hold back all I/O from now on."""
    flags = _SUSPEND | (0 if flush else _NOFLUSH) | (0 if freeze else _SKIP_LOCKFS)
    _tried(f"suspend the device {name}", _DEV_SUSPEND, name, flags=flags)


def resume(name: str, missing_ok: bool = False) -> bool:
    """Let I/O go on; False if there is no such device and ``missing_ok``."""
    if missing_ok and not exists(name):
        return False
    _tried(f"resume the device {name}", _DEV_SUSPEND, name)
    return True


def exists(name: str) -> bool:
    """Whether there is such a device. A machine that was booted again may not even know device-mapper."""
    if not os.path.exists(_CONTROL):
        return False
    try:
        _ask(_DEV_STATUS, name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True


def is_suspended(name: str) -> bool:
    return bool(_tried(f"ask for the device {name}", _DEV_STATUS, name).flags & _SUSPEND)


def table(name: str, status: bool = False) -> list[tuple[int, int, str, str]]:
    """The device's table; with ``status``, what its targets say of themselves in place of arguments."""
    room = _ROOM
    while True:
        answer = _tried(
            f"read the table of {name}", _TABLE_STATUS, name, flags=0 if status else _STATUS_TABLE, room=room
        )
        if not answer.flags & _BUFFER_FULL:
            return list(_lines(answer))
        room *= 4


def message(name: str, text: str, sector: int = 0) -> str:
    """Send a message to the target at ``sector``; gives what it answers, which is mostly nothing."""
    data = _MESSAGE.pack(sector) + text.encode() + b"\0"
    answer = _tried(f"send the message {text!r} to {name}", _TARGET_MSG, name, data)
    return _text(answer.data) if answer.flags & _DATA_OUT else ""


def make_thin(
    pool: str, message_text: str, name: str, lines: list[tuple[int, int, str, str]], origin: str = ""
) -> str:
    """Have a pool make a thin volume, and make its device; gives the path.

    The volume is a snapshot if ``origin`` names the device of another, which is suspended meanwhile.
    """
    if origin:
        suspend(origin)
    try:
        message(pool, message_text)
    finally:
        if origin:
            resume(origin)
    return create(name, lines)


def erase_start(path: str, size: int) -> None:
    """Write zeros to the first bytes of a device: what they held before would be taken for metadata."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, bytes(size))
        os.fsync(handle)
    finally:
        os.close(handle)


def _load(name: str, lines: list[tuple[int, int, str, str]]) -> None:
    data = b"".join(_packed(line) for line in lines)
    shown = "; ".join("{} {} {} {}".format(*line).rstrip() for line in lines)
    _tried(f"load the table '{shown}' into {name}", _TABLE_LOAD, name, data, targets=len(lines))


def _packed(line: tuple[int, int, str, str]) -> bytes:
    start, length, target, arguments = line
    text = arguments.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return _TARGET.pack(start, length, 0, _TARGET.size + len(text), target.encode()) + text


def _lines(answer: _Answer) -> Iterator[tuple[int, int, str, str]]:
    offset = 0
    for _ in range(answer.targets):
        start, length, _, offset_of_next, target = _TARGET.unpack_from(answer.data, offset)
        yield start, length, _text(target), _text(answer.data[offset + _TARGET.size :])
        offset = offset_of_next


def _tried(
    what: str, command: int, name: str, data: bytes = b"", flags: int = 0, targets: int = 0, room: int = _ROOM
) -> _Answer:
    """As ``_ask``, but a refusal is told with what the kernel logged about it."""
    log = kmsg.open_at_end()
    try:
        return _ask(command, name, data, flags, targets, room)
    except OSError as error:
        heard = kmsg.heard(log)
        if command == _DEV_CREATE and error.errno == errno.EBUSY:
            heard = "there is a device of that name already"
        raise GuestError(f"device-mapper cannot {what}: {error.strerror}; {heard}") from None
    finally:
        os.close(log)


def _ask(
    command: int, name: str = "", data: bytes = b"", flags: int = 0, targets: int = 0, room: int = _ROOM
) -> _Answer:
    size = _HEADER.size + max(len(data), room)
    buffer = bytearray(size)
    _HEADER.pack_into(buffer, 0, 4, 0, 0, size, _HEADER.size, targets, 0, flags, 0, 0, 0, name.encode(), b"")
    buffer[_HEADER.size : _HEADER.size + len(data)] = data
    try:
        control = os.open(_CONTROL, os.O_RDWR)
    except OSError as error:
        raise GuestError(f"no device-mapper in this kernel ({_CONTROL}: {error.strerror})") from None
    try:
        fcntl.ioctl(control, _REQUEST | command, buffer)
    finally:
        os.close(control)
    _, _, _, size, start, targets, opened, flags, _, _, device, _, _ = _HEADER.unpack_from(buffer)
    return _Answer(flags, targets, opened, device, bytes(buffer[start:size]))


def _holders(device: int) -> str:
    try:
        names = os.listdir(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/holders")
    except OSError:
        names = []
    return f"; {', '.join(sorted(names))} lies on it" if names else ""


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")
