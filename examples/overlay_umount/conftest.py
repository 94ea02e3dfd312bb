"""A slow disk with an XFS, and writeback that starts only when a test wants it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kernelfs import DiskFactory, Overlay, OverlayFactory, Writeback, Xfs, XfsFactory

MIB = 1 << 20
SPEED = 20 * MIB  # bytes per second that the disk can write


@pytest.fixture
def slow_xfs(disk_factory: DiskFactory, xfs_factory: XfsFactory, writeback: Writeback) -> Xfs:
    """An XFS on a disk that writes 20 MiB/s, whatever the host's own disk can do.

    Left alone, the kernel writes dirty data back after 30 s, or when a tenth of memory is dirty. Neither may
    happen before the umount, so dirty data is held until something syncs it.
    """
    xfs = xfs_factory(on=disk_factory(size="1G", write_bps=SPEED))
    writeback.hold()
    return xfs


@pytest.fixture
def containers(overlay_factory: OverlayFactory, slow_xfs: Xfs) -> Callable[..., list[Overlay]]:
    """``containers(10, data="4M")``: overlays on one lower layer and one XFS, each with such a file."""

    def start(count: int, *, data: str = "", volatile: bool = False) -> list[Overlay]:
        overlays = [overlay_factory(on=slow_xfs, volatile=volatile) for _ in range(count)]
        slow_xfs.sync()
        for overlay in overlays:
            if data:
                overlay.write("app.bin", data)
        return overlays

    return start
