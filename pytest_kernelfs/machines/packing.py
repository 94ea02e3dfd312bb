"""Packs a folder of the host for its way into a guest: what of it is taken, in batches of a megabyte."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.sharing import DONE, FILE, FOLDER, HOLE, LINK, MORE, pack

IGNORE_FILE = ".kernelfsignore"
# Histories, virtual environments and caches: large, and of no use inside a machine.
LEFT_OUT = frozenset(
    (
        *(".git", ".hg", ".svn", ".bzr", ".jj", ".venv", ".tox", ".nox", ".direnv"),
        *("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "node_modules"),
    )
)
# Every virtual environment has it, whatever the folder's name is (PEP 405).
_ENVIRONMENT_MARK = "pyvenv.cfg"

# Measured under TCG: 20 MB/s with 256 KiB in a call, 30 MB/s with 1 MiB, 5 MB/s with 8 MiB.
_BATCH = 1 << 20
_MOST_ENTRIES = 2000


@dataclass(frozen=True)
class Found:
    """A file, folder or symbolic link of a folder to be packed; ``relative`` is "" for the folder itself."""

    path: Path
    relative: str
    status: os.stat_result

    @property
    def size(self) -> int:
        """What it takes up: a file with holes less than its length."""
        regular = stat.S_ISREG(self.status.st_mode)
        return min(self.status.st_size, self.status.st_blocks * 512) if regular else 0


def scan(folder: Path) -> list[Found]:
    """All that is to be packed, folders before what they hold.

    Sockets, devices and pipes are left out, and so is what LEFT_OUT and the folder's ignore file name, and
    what is gone when it is to be looked at.
    Raises: UsageError if something cannot be read.
    """
    patterns = _patterns(folder)
    found: list[Found] = []
    try:
        _scan(folder, "", patterns, found)
    except OSError as error:
        raise UsageError(_unreadable(error)) from None
    return found


def _scan(path: Path, relative: str, patterns: list[str], found: list[Found]) -> None:
    found.append(Found(path, relative, path.stat()))
    with os.scandir(path) as entries:
        members = sorted(entries, key=lambda entry: entry.name)
    for entry in members:
        below = f"{relative}/{entry.name}" if relative else entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # somebody's temporary file
        kind = stat.S_IFMT(status.st_mode)
        if _is_ignored(entry.name, below, patterns) or kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            continue
        if kind != stat.S_IFDIR:
            found.append(Found(Path(entry.path), below, status))
        elif not Path(entry.path, _ENVIRONMENT_MARK).exists():
            with suppress(FileNotFoundError):
                _scan(Path(entry.path), below, patterns, found)


def _patterns(folder: Path) -> list[str]:
    """Those of the folder's ignore file: one a line, as in a shell; lines that begin with # say nothing."""
    try:
        lines = (folder / IGNORE_FILE).read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--kernelfs-share: cannot read {folder / IGNORE_FILE}: {error}") from None
    stripped = (line.strip() for line in lines)
    return [line.rstrip("/") for line in stripped if line and not line.startswith("#")]


def _is_ignored(name: str, relative: str, patterns: list[str]) -> bool:
    """A pattern with a slash is for the path from the shared folder on, one without for names anywhere."""
    return name in LEFT_OUT or any(
        fnmatch.fnmatchcase(relative if "/" in pattern else name, pattern.lstrip("/")) for pattern in patterns
    )


def batches(found: list[Found]) -> Iterator[bytes]:
    """What ``guest.sharing.unpack`` takes, call by call.

    A file that is gone meanwhile is left out. Raises: UsageError if one cannot be read.
    """
    batch = _Batch()
    for one in found:
        mode = one.status.st_mode
        try:
            if stat.S_ISDIR(mode):
                batch.add(FOLDER, one.relative)
            elif stat.S_ISLNK(mode):
                batch.add(LINK, one.relative, str(one.path.readlink()))
            else:
                yield from _file(one, batch)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(_unreadable(error)) from None
        if batch.full:
            yield batch.take()
    # Last, because each file made in a folder sets its time.
    for one in reversed(found):
        if stat.S_ISDIR(one.status.st_mode):
            batch.add(DONE, one.relative, stat.S_IMODE(one.status.st_mode), one.status.st_mtime_ns)
    yield batch.take()


def _file(one: Found, batch: _Batch) -> Iterator[bytes]:
    """Add a file to the batch, part by part; gives the batches that are full meanwhile."""
    mode, time_ns = stat.S_IMODE(one.status.st_mode), one.status.st_mtime_ns
    kind = FILE
    with one.path.open("rb") as file:
        while (part := file.read(_BATCH - batch.size)) or kind == FILE:
            if kind != FILE and not part.strip(b"\0"):
                batch.add(HOLE, one.relative, mode, time_ns, len(part))
            else:
                batch.add(kind, one.relative, mode, time_ns, len(part), content=part)
            kind = MORE
            if batch.full:
                yield batch.take()


class _Batch:
    def __init__(self) -> None:
        self._entries: list[list[object]] = []
        self._contents: list[bytes] = []
        self.size = 0

    @property
    def full(self) -> bool:
        return self.size >= _BATCH or len(self._entries) >= _MOST_ENTRIES

    def add(self, *entry: object, content: bytes = b"") -> None:
        self._entries.append(list(entry))
        self._contents.append(content)
        self.size += len(content)

    def take(self) -> bytes:
        """All that was added since the last time."""
        packed = pack(self._entries, self._contents)
        self._entries, self._contents, self.size = [], [], 0
        return packed


def _unreadable(error: OSError) -> str:
    return (
        f"--kernelfs-share: cannot read {error.filename}: {error.strerror}; make it readable, or name it in "
        f"the file {IGNORE_FILE} of the shared folder"
    )
