"""Files: put, get, and write test data that was generated beforehand."""

from __future__ import annotations

import os
import random
import time

from pytest_kernelfs.guest.dispatch import GuestError

_CHUNK = 1 << 20
_buffer = b""


def put(path: str, data: bytes, mode: int = 0o644, append: bool = False) -> None:
    """Write bytes to a file, making its folders. Raises: GuestError."""
    folder = os.path.dirname(path)
    try:
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "ab" if append else "wb") as file:
            file.write(data)
        os.chmod(path, mode)
    except OSError as error:
        raise GuestError(f"cannot write {path} in the machine: {error.strerror}") from None


def get(path: str, offset: int = 0, size: int = -1) -> bytes:
    """The bytes of a file, or a part of them. Raises: GuestError."""
    try:
        with open(path, "rb") as file:
            if offset:
                file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise GuestError(f"cannot read {path} in the machine: {error.strerror}") from None


def text(path: str) -> str:
    """What a file of /proc or /sys says, without the blanks around it; "" if it cannot be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(path: str, size: int, offset: int = -1) -> float:
    """Write ``size`` bytes of incompressible data; gives the seconds it took.

    From ``offset`` on, with all else that the file holds left as it is; below 0, it holds nothing else.

    The data is one pre-generated megabyte, repeated: drawing it while writing
    would let the first pages grow old, and writeback begins by age. Raises: GuestError.
    """
    data = pregenerate()
    left = size
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        start = time.monotonic()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset < 0 else 0), 0o644)
        try:
            os.lseek(handle, max(offset, 0), os.SEEK_SET)
            while left > 0:
                left -= os.write(handle, data[: min(left, _CHUNK)])
        finally:
            os.close(handle)
    except OSError as error:
        done = f" after {size - left} of {size} bytes" if left < size else ""
        raise GuestError(f"cannot write {path} in the machine{done}: {error.strerror}") from None
    return time.monotonic() - start


def make_tree(root: str, contents: dict[str, str | bytes]) -> None:
    """Create files below ``root``: name -> bytes or text; a name that ends in "/" is a folder."""
    os.makedirs(root, exist_ok=True)
    for name, content in contents.items():
        path = os.path.join(root, name)
        if name.endswith("/"):
            os.makedirs(path, exist_ok=True)
        else:
            put(path, content.encode() if isinstance(content, str) else content)


def make_folders(paths: list[str]) -> None:
    for path in paths:
        os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """Remove a file or an empty folder; one that is gone already is no error."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def pregenerate() -> bytes:
    """The data that ``write`` repeats, drawn on first use."""
    global _buffer
    if not _buffer:
        _buffer = random.Random(4711).getrandbits(8 * _CHUNK).to_bytes(_CHUNK, "little")
    return _buffer
