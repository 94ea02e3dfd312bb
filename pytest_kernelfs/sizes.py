"""Sizes and rates as users write them: an int of bytes, or "64K", "8M", "2G", in powers of 1024."""

from __future__ import annotations

import re

from pytest_kernelfs.errors import UsageError

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
# Fifteen digits are exact as a float, and reach further than any disk.
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)

Size = int | str


def parse_size(size: Size, what: str = "size") -> int:
    """Bytes.

    Raises: UsageError, naming ``what``, for anything else than a size.
    """
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise UsageError(
            f"{what} {size!r} is no size; write bytes as an int, or text such as '64K', '8M', '2G'"
        )
    if isinstance(size, int):
        if size < 0:
            raise UsageError(f"{what} {size} is negative")
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise UsageError(f"{what} {size!r} is no size; write bytes as a number, or '64K', '8M', '2G'")
    return int(float(match[1]) * (1 << _UNITS[match[2].upper()]))


def format_size(size: float) -> str:
    """A size for people: 83886080 -> "80.0 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
