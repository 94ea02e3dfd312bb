"""Which XFS features a kernel can mount: what a newer mkfs.xfs switches on, an older kernel refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_kernelfs.kernels.version import KernelVersion


@dataclass(frozen=True)
class _Feature:
    """``option`` of ``flag``: known to mkfs.xfs from ``mkfs`` on, sound in kernels from ``kernel`` on."""

    flag: str
    option: str
    mkfs: tuple[int, int]
    kernel: tuple[int, int]


# Kernels: the first long-term series whose mkfs/lts_*.conf of xfsprogs switches the feature on; earlier
# ones lack it or call it experimental. mkfs: the xfsprogs release that brought the option.
_FEATURES = (
    _Feature("-m", "reflink", (4, 9), (4, 16)),
    _Feature("-m", "rmapbt", (4, 8), (6, 6)),
    _Feature("-m", "inobtcount", (5, 10), (5, 15)),
    _Feature("-m", "bigtime", (5, 10), (5, 15)),
    _Feature("-m", "metadir", (6, 13), (6, 18)),
    _Feature("-i", "sparse", (4, 2), (4, 4)),
    _Feature("-i", "nrext64", (5, 19), (6, 6)),
    _Feature("-i", "exchange", (6, 10), (6, 18)),
    _Feature("-n", "parent", (6, 10), (6, 18)),
)


def mkfs_flags(mkfs: tuple[int, int], kernel: KernelVersion, wanted: Sequence[str] = ()) -> list[str]:
    """Flags that switch off what this kernel cannot mount; all else stays at mkfs.xfs's defaults.

    What the flags in ``wanted`` name is left alone: mkfs.xfs takes no option twice.
    """
    named = set(re.findall(r"\w+", " ".join(wanted)))
    flags: dict[str, list[str]] = {}
    for feature in _FEATURES:
        if feature.option in named:
            continue
        if mkfs >= feature.mkfs and (kernel.major, kernel.minor) < feature.kernel:
            flags.setdefault(feature.flag, []).append(f"{feature.option}=0")
    # Overlay needs the file type in directory entries.
    if "ftype" not in named:
        flags.setdefault("-n", []).append("ftype=1")
    return [word for flag, options in flags.items() for word in (flag, ",".join(options))]
