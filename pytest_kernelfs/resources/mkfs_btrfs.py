"""Which btrfs features a kernel can mount: what a newer mkfs.btrfs switches on, an older kernel refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_kernelfs.kernels.version import KernelVersion


@dataclass(frozen=True)
class _Feature:
    """Switched off by ``flag``; a default from mkfs.btrfs ``mkfs`` on, sound from kernel ``kernel`` on."""

    flag: str
    name: str
    mkfs: tuple[int, int]
    kernel: tuple[int, int]


# Both columns as "mkfs.btrfs -O list-all" and "-R list-all" give them, and the notes of release 6.19.
_FEATURES = (
    _Feature("-O", "no-holes", (5, 15), (4, 0)),
    _Feature("-R", "free-space-tree", (5, 15), (4, 9)),
    _Feature("-O", "block-group-tree", (6, 19), (6, 1)),
)


def mkfs_flags(mkfs: tuple[int, int], kernel: KernelVersion, wanted: Sequence[str] = ()) -> list[str]:
    """Flags that switch off what this kernel cannot mount; what ``wanted`` names is left alone."""
    named = set(re.findall(r"[\w-]+", " ".join(wanted)))
    return [
        word
        for feature in _FEATURES
        if mkfs >= feature.mkfs and (kernel.major, kernel.minor) < feature.kernel
        if feature.name not in named
        for word in (feature.flag, f"^{feature.name}")
    ]
