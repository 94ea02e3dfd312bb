"""Folders of the host that this machine has a copy of."""

from __future__ import annotations

import errno
import json
import os
import struct
from typing import List, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import journal, meminfo
from pytest_kernelfs.guest.dispatch import GuestError

PLACE = "/run/kernelfs/share"
_TABLE = "/run/kernelfs/shares.json"
# Beside a share there has to be memory for the tests.
_SPARE = 32 << 20
_LENGTH = struct.Struct("!I")

FOLDER, LINK, FILE, MORE, HOLE, DONE = "d", "l", "f", "+", "h", "t"


def make_room(place: str, size: int) -> None:
    """Make a folder that ``size`` bytes fit in. Raises: GuestError if this machine has too little memory."""
    os.makedirs(place, exist_ok=True)
    status = os.statvfs(place)
    room = meminfo.read("MemAvailable")["MemAvailable"]
    if status.f_blocks:  # a root in memory may know no limit of its own
        room = min(room, status.f_bavail * status.f_frsize)
    if room < size + _SPARE:
        raise GuestError(
            f"{_mib(size)} do not fit into this machine, which has room for {_mib(max(room - _SPARE, 0))}; "
            "give it more (--kernelfs-memory, where it is started for the tests), or bring less: the file "
            ".kernelfsignore in a shared folder lists what stays out"
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def pack(entries: list[list[object]], contents: list[bytes]) -> bytes:
    """A batch for ``unpack``: entries, and the contents of those that have some, in order."""
    index = json.dumps(entries, separators=(",", ":")).encode()
    return b"".join([_LENGTH.pack(len(index)), index, *contents])


def unpack(root: str, batch: bytes) -> None:
    """Make what a batch holds below ``root``.

    Its entries are lists: kind, path, then for LINK the target; for FOLDER nothing; for DONE (a folder that
    is complete) mode and time; for FILE (begins a file), MORE and HOLE (go on with it) mode, time, bytes.
    Raises: GuestError if the machine is full.
    """
    end = _LENGTH.size + _LENGTH.unpack_from(batch)[0]
    view = memoryview(batch)
    try:
        for kind, relative, *rest in json.loads(bytes(view[_LENGTH.size : end]).decode()):
            path = os.path.join(root, relative) if relative else root
            if kind == FOLDER:
                os.makedirs(path, exist_ok=True)
            elif kind == LINK:
                _link_anew(rest[0], path)
            elif kind == DONE:
                os.chmod(path, rest[0])
                os.utime(path, ns=(rest[1], rest[1]))
            else:
                mode, time_ns, size = rest
                start, end = end, end + (0 if kind == HOLE else size)
                _write(path, kind, view[start:end], size)
                os.chmod(path, mode)
                os.utime(path, ns=(time_ns, time_ns))
    except OSError as error:
        raise GuestError(f"cannot unpack a share at {root}: {error.strerror}: {error.filename}") from None


def _link_anew(target: str, path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)
    os.symlink(target, path)


def _write(path: str, kind: str, content: memoryview, size: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if kind == FILE else os.O_APPEND)
    handle = os.open(path, flags, 0o600)
    try:
        if kind == HOLE:
            os.ftruncate(handle, os.fstat(handle).st_size + size)
        while content:
            content = content[os.write(handle, content) :]
    finally:
        os.close(handle)


def appear(host: str, content: str, path: str) -> None:
    """Have what was unpacked at ``content`` appear at ``path``, and be known as the folder ``host``.

    Raises: GuestError if something else is there.
    """
    if path != content:
        _lead(content, path)
    known = [entry for entry in table() if entry[1] != path]
    with open(_TABLE, "w") as file:
        json.dump([*known, (host, path)], file)


def _lead(content: str, path: str) -> None:
    """Make a symbolic link, with the folders that lead to it, and note what was made."""
    if os.path.islink(path) and os.readlink(path) == content:
        return
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        lead_to(path)
        journal.note("link", path)
        os.symlink(content, path)
    except OSError as error:
        raise GuestError(
            f"cannot share a folder at {path} in this machine: {error.strerror}; give it another path "
            "(--kernelfs-share DIR:GUEST)"
        ) from None


def lead_to(path: str) -> None:
    """Make the folders that lead to a path, and note each that is new."""
    missing = []
    folder = os.path.dirname(path)
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(missing):
        journal.note("folder", folder)
        os.mkdir(folder)


def table() -> List[Tuple[str, str]]:  # noqa: UP006
    """The shares that are here: (folder of the host, path here)."""
    try:
        with open(_TABLE) as file:
            return [(host, path) for host, path in json.load(file)]
    except OSError:
        return []
