"""Kernels on disk: building the cache's entries, listing and removing them.

An entry holds ``kernel.json`` and, as far as the kernel has them, ``vmlinuz``,
``config`` and ``lib/modules/<release>``. Paths in kernel.json are relative to
the entry, unless they lead to the user's own files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

from pytest_kernelfs import tools
from pytest_kernelfs.cache import Cache, explain_os_errors, touch
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.kernel import Candidate, Kernel

KIND = "kernels"
_RECORD = "kernel.json"


class Store:
    """The kernels in one cache folder."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def get(self, checksum: str) -> Kernel | None:
        """The kernel with that checksum, or None if it is not here (any more)."""
        kernel = _load(self._cache.path(KIND, checksum))
        if kernel is not None:
            touch(kernel.boot_image.parent)
        return kernel

    def build(self, candidate: Candidate, fill: Callable[[Path], Path | None]) -> Kernel:
        """The candidate's kernel, made by ``fill`` if it is not here yet.

        ``fill`` writes image, config and modules into the folder it is given;
        it may return a modules folder elsewhere that is to be used in place.

        Raises: InfrastructureError if the cache cannot be written; whatever ``fill`` raises.
        """

        def make(folder: Path) -> None:
            elsewhere = fill(folder)
            _finish(folder, candidate, elsewhere)

        entry = self._cache.entry(KIND, candidate.checksum, make)
        kernel = _load(entry)
        if kernel is None:
            raise InfrastructureError(
                f"the cached kernel {entry} is damaged; remove that folder and run again"
            )
        return kernel

    def all(self) -> list[Kernel]:
        """Every kernel here, the oldest version first. Raises: InfrastructureError if nobody may look."""
        kernels = [_load(entry) for entry in self._entries()]
        return sorted((k for k in kernels if k), key=lambda kernel: (kernel.version, kernel.release))

    def _entries(self) -> list[Path]:
        folder = self._cache.root / KIND
        with explain_os_errors("look", folder):
            folders = sorted(folder.iterdir()) if folder.is_dir() else []
        return [each for each in folders if not each.name.startswith(".")]

    def useless(self) -> dict[Path, str]:
        """Folders without a kernel that could be used, each with what is wrong with it.

        Raises: InfrastructureError if nobody may look.
        """
        damaged = [entry for entry in self._entries() if _is_damaged(entry)]
        return {
            **dict.fromkeys(self._cache.unfinished(KIND), "which was never finished"),
            **dict.fromkeys(damaged, "which is damaged, or whose modules elsewhere are gone"),
        }

    def remove(self, kernel: Kernel) -> int:
        """Remove a kernel; the bytes that this freed on disk (0 if it was gone already).

        Raises: InfrastructureError if the cache cannot be written.
        """
        entry = self._cache.path(KIND, kernel.checksum)
        with explain_os_errors("remove", entry), self._cache.lock(KIND, entry.name):
            return _remove(entry)

    def discard(self, useless: Path) -> int:
        """Remove one of the folders that ``useless`` gave; the bytes that this freed on disk.

        Raises: InfrastructureError if the cache cannot be written.
        """
        with explain_os_errors("remove", useless):
            if useless.name.startswith("."):
                return _delete(useless)
            with self._cache.lock(KIND, useless.name):
                # It may have been made anew meanwhile.
                return _remove(useless) if _is_damaged(useless) else 0

    def prune(self, keep: Collection[str], unused_for: float) -> list[Kernel]:
        """Remove what is useless or was not used for ``unused_for`` seconds; returns the kernels among it.

        ``keep`` holds checksums, releases or versions that stay in any case.
        """
        for folder in self.useless():
            self.discard(folder)
        doomed = [kernel for kernel in self.all() if self._is_stale(kernel, keep, unused_for)]
        for kernel in doomed:
            self.remove(kernel)
        return doomed

    def _is_stale(self, kernel: Kernel, keep: Collection[str], unused_for: float) -> bool:
        if {kernel.checksum, kernel.release, str(kernel.version)} & set(keep):
            return False
        used = self._cache.path(KIND, kernel.checksum).stat().st_mtime
        return time.time() - used >= unused_for


def _remove(entry: Path) -> int:
    if not entry.is_dir():
        return 0
    # By rename first: a reader sees the whole entry or none.
    doomed = entry.with_name(f".{entry.name[:40]}.removed-{os.getpid()}")
    entry.rename(doomed)
    return _delete(doomed)


def _delete(folder: Path) -> int:
    freed = disk_usage(folder)
    shutil.rmtree(folder)
    return freed


def disk_usage(folder: Path) -> int:
    """Bytes that a folder occupies on disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _finish(folder: Path, candidate: Candidate, elsewhere: Path | None) -> None:
    if not (folder / "vmlinuz").is_file():
        raise InfrastructureError(
            f"{candidate.source} has no kernel image of {candidate.release}; it is not the package of a "
            "bootable kernel"
        )
    modules = folder / "lib" / "modules" / candidate.release
    if modules.is_dir():
        run_depmod(folder, candidate.release)
    kernel = Kernel(
        candidate.version,
        candidate.release,
        candidate.source,
        candidate.checksum,
        image=Path("vmlinuz"),
        modules=modules.relative_to(folder) if modules.is_dir() else elsewhere,
        config=Path("config") if (folder / "config").is_file() else None,
    )
    (folder / _RECORD).write_text(json.dumps(kernel.to_dict(), indent=1))


def _load(entry: Path) -> Kernel | None:
    """The entry's kernel; None if it has none that can be used, or be read now."""
    try:
        return _read(entry)
    except OSError:
        return None


def _is_damaged(entry: Path) -> bool:
    try:
        return _read(entry) is None
    except OSError:
        return False  # which nobody can tell now


def _read(entry: Path) -> Kernel | None:
    """The entry's kernel; None if there is none, or its modules in the user's own folder are gone.

    Raises: OSError if that cannot be told.
    """
    try:
        data = json.loads((entry / _RECORD).read_text())
        for name in ("image", "modules", "config"):
            if data[name] is not None:
                data[name] = str(entry / data[name])
        kernel = Kernel.from_dict(data)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return kernel if kernel.modules is None or kernel.modules.is_dir() else None


def run_depmod(base: Path, release: str) -> None:
    """Write the tables of ``base/lib/modules/<release>`` that modprobe reads.

    Raises: ProviderUnavailable if the host lacks depmod; InfrastructureError if it fails.
    """
    # Some distributions' depmod looks below usr/lib instead; a link serves both.
    usr = base / "usr"
    usr.symlink_to(".")
    try:
        command = [str(tools.need("depmod")), "-b", str(base), release]
        result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    finally:
        usr.unlink()
    if result.returncode != 0:
        detail = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InfrastructureError(
            f"depmod failed on the modules of {release} (exit status {result.returncode}): {detail}; is "
            "there room in the cache folder, and can this host's kmod read the modules' compression?"
        )
