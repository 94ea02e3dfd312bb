"""The QEMU program of this host."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.tools import need

PROGRAM = "qemu-system-x86_64"
# q35 with ACPI hot-plug behind root ports, which attaching disks relies on, came with 6.1.
OLDEST = (6, 1)


@dataclass(frozen=True)
class Qemu:
    """A QEMU program: its path, version ("7.2.22"), and a text that changes when the file does."""

    path: Path
    version: str
    fingerprint: str


@cache
def find_qemu() -> Qemu:
    """The QEMU to use.

    Raises: ProviderUnavailable if it is missing, too old, or does not run.
    """
    path = need(PROGRAM)
    printed, complaint = _ask_version(path)
    match = re.search(r"version (\d+(?:\.\d+)+)", printed)
    if match is None:
        seen = complaint or printed
        raise ProviderUnavailable(f"{path} --version does not tell its version ({seen}); reinstall QEMU")
    version = match[1]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise ProviderUnavailable(f"{path} is version {version}; {wanted} or newer is needed")
    status = path.stat()
    return Qemu(path, version, f"{path} {version} {status.st_size} {status.st_mtime_ns}")


def _ask_version(path: Path) -> tuple[str, str]:
    """What it prints when it is asked, and what went wrong."""
    try:
        done = subprocess.run([str(path), "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return "", str(error.strerror)
    return done.stdout.strip(), done.stderr.strip() or ("" if done.stdout else f"exit code {done.returncode}")
