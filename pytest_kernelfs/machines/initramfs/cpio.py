"""Writes cpio archives in the kernel's "newc" format, the same bytes for the same input.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

_ALIGN = 4
_TRAILER = "TRAILER!!!"


class CpioWriter:
    """Appends members to an open binary file; folders above a member are made as needed.

    Times, owners and inode numbers are fixed, so that equal content gives equal archives.
    Members are given with paths from the root of the guest, with or without a leading slash.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._written: set[str] = set()

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file; a path that is there already is left as it is."""
        self._member(path, stat.S_IFREG | mode, content)

    def copy(self, path: str, source: Path) -> None:
        """Add a host file with its content and its permission bits, without set-id bits."""
        if self._clean(path) not in self._written:
            self.file(path, source.read_bytes(), source.stat().st_mode & 0o755)

    def symlink(self, path: str, target: str) -> None:
        self._member(path, stat.S_IFLNK | 0o777, target.encode())

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._member(path, stat.S_IFDIR | mode, b"")

    def device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device."""
        self._member(path, stat.S_IFCHR | mode, b"", (major, minor))

    def finish(self) -> None:
        """Write the trailer; the archive is a multiple of four bytes, so another may follow it."""
        self._header(_TRAILER, 0, b"", (0, 0))

    @staticmethod
    def _clean(path: str) -> str:
        return path.strip("/")

    def _member(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        name = self._clean(path)
        if not name or name in self._written:
            return
        parent = name.rpartition("/")[0]
        if parent:
            self.folder(parent)
        self._written.add(name)
        self._header(name, mode, content, device)

    def _header(self, name: str, mode: int, content: bytes, device: tuple[int, int]) -> None:
        self._inode += 1
        raw = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(raw), 0)
        self._padded(b"070701" + b"".join(b"%08X" % field for field in fields) + raw)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._file.write(data + b"\0" * (-len(data) % _ALIGN))
