"""The initial ramdisk of one kernel: both archives, one behind the other."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.initramfs.modules import build_modules
from pytest_kernelfs.machines.initramfs.userland import build_userland


def build_initramfs(cache: Cache, kernel: Kernel) -> Path:
    """The file to boot this kernel with, from the cache or built.

    Raises: ProviderUnavailable if the host lacks a required program; InfrastructureError.
    """
    parts = [part for part in (build_userland(cache), build_modules(cache, kernel)) if part is not None]
    key = hashlib.sha256("\n".join(part.parent.name for part in parts).encode()).hexdigest()[:32]

    def build(folder: Path) -> None:
        with (folder / "initramfs").open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)

    return cache.entry("initramfs", key, build) / "initramfs"
