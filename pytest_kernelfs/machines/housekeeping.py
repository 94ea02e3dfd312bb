"""Keeps the cache within its size: what has not been used for longest goes first.

Only what machines are made of is counted, and what was found out about them:
templates, initial ramdisks and their parts, and which needs of tests are met.
Kernels are few, and fetched on purpose; ``kernelfs kernels prune`` removes
those. What was never finished goes, whatever it was to be.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.cache import SCRATCH, Cache, explain_os_errors
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.qemu import template
from pytest_kernelfs.sizes import format_size

_KINDS = (template.KIND, "initramfs", "modules", "userland", "needs")
_KEPT = ("kernels", "indexes", "running-kernels", "vagrant-home")
# An entry that was just found may be about to be opened: it is let alone for a while.
_IN_HAND_S = 600.0
# No file takes longer to be written than this; what is older was left by a process that was killed.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used: float


def check_allowed(cache: Cache) -> None:
    """Raises: InfrastructureError, naming a folder of the cache, if this user may remove nothing from it."""
    for folder in (cache.root, *(cache.root / kind for kind in (*_KINDS, SCRATCH))):
        with explain_os_errors("look", folder, "--cache DIR"):
            try:
                status = folder.stat()
            except FileNotFoundError:
                continue
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise InfrastructureError(
                f"cannot remove anything from {folder}: its file system is read-only; mount it for writing, "
                "or name another cache with --cache DIR"
            )
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise InfrastructureError(
                f"cannot remove anything from {folder}: it cannot be written (owner {status.st_uid}, mode "
                f"{status.st_mode & 0o777:o}); do it as its owner, or name your own cache with --cache DIR"
            )


def tidy(cache: Cache, limit: int) -> list[str]:
    """Remove abandoned builds, and the longest unused entries until the rest takes at most ``limit`` bytes.

    Gives a line for each. What is in use stays; what another process removes meanwhile is no error.
    """
    removed = [f"removed {path}, which was never finished" for path in _abandoned(cache) if _remove(path)]
    entries = sorted(_entries(cache), key=lambda entry: entry.used)
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total <= limit:
            break
        if not _in_hand(entry) and _remove(entry.path):
            total -= entry.size
            removed.append(f"removed {entry.path} ({format_size(entry.size)})")
    return removed


def _entries(cache: Cache) -> Iterator[_Entry]:
    for path in _children(cache):
        if not path.name.startswith("."):
            try:
                used = path.stat().st_mtime
                files = path.iterdir() if path.is_dir() else [path]
                blocks = sum(file.stat().st_blocks for file in files)
            except OSError:
                continue
            yield _Entry(path, blocks * 512, used)


def _abandoned(cache: Cache) -> Iterator[Path]:
    for kind in (*_KINDS, *_KEPT):
        yield from cache.unfinished(kind)
    for path in _children(cache):
        try:
            file = path.name.startswith(".") and path.is_file()
            if file and time.time() - path.stat().st_mtime > _ABANDONED_S:
                yield path
        except OSError:
            continue


def _children(cache: Cache) -> Iterator[Path]:
    for kind in _KINDS:
        folder = cache.root / kind
        if folder.is_dir():
            yield from folder.iterdir()


def _in_hand(entry: _Entry) -> bool:
    if entry.path.parent.name == template.KIND:
        return template.is_in_use(entry.path)
    return time.time() - entry.used < _IN_HAND_S


def _remove(path: Path) -> bool:
    """Take it out of sight in one step, then remove it."""
    doomed = path.with_name(f".doomed-{path.name.strip('.')}")
    try:
        path.rename(doomed)
    except OSError:
        return False
    if doomed.is_dir():
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            doomed.unlink()
    return True
