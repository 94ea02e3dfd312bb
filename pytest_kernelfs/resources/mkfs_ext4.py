"""Which ext4 features a kernel can mount: what a newer mke2fs switches on, an older kernel refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_kernelfs.kernels.version import KernelVersion

# mke2fs 1.47.0 knows both and has them among its defaults, where no distribution says otherwise. Kernels have
# orphan_file from 5.15 on, metadata_csum_seed from 4.4 on; the tools of older kernels left out both.
_FEATURES = ("orphan_file", "metadata_csum_seed")
_MKFS = (1, 47)
_KERNEL = (5, 15)

# The quota files of the types asked for are part of the file system.
QUOTA_TYPES = {"user": "usrquota", "group": "grpquota", "project": "prjquota"}


def mkfs_flags(mkfs: tuple[int, int], kernel: KernelVersion, wanted: Sequence[str] = ()) -> list[str]:
    """Flags that switch off what this kernel cannot mount; what ``wanted`` names is left alone."""
    named = set(re.findall(r"\w+", " ".join(wanted)))
    if mkfs < _MKFS or (kernel.major, kernel.minor) >= _KERNEL:
        return []
    off = [f"^{feature}" for feature in _FEATURES if feature not in named]
    return ["-O", ",".join(off)] if off else []


def quota_flags(types: Sequence[str]) -> list[str]:
    """Flags that give it the files in which quotas of these types are kept."""
    if not types:
        return []
    features = "quota,project" if "project" in types else "quota"
    return ["-O", features, "-E", "quotatype=" + ":".join(QUOTA_TYPES[kind] for kind in types)]
