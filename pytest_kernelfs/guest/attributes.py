"""The files with which the kernel is told something: of /proc/sys, sysfs, cgroups, debugfs."""

from __future__ import annotations

import os


def write(path: str, text: str) -> None:
    """In one write(2), as such files ask for; one that is not there is not made. Raises: OSError."""
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
