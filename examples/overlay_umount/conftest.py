"""A slow disk with an XFS, and writeback that starts only when a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_kernelfs import VM, DiskFactory, Overlay, OverlayFactory, Xfs, XfsFactory

MIB = 1 << 20
SPEED = 20 * MIB  # bytes per second that the disk can write

# The kernel starts to write back after 30 s or at a tenth of memory. Neither may happen before the umount.
HELD_DIRTY = {"vm.dirty_writeback_centisecs": "0", "vm.dirty_background_bytes": str(512 * MIB)}


@pytest.fixture
def held_dirty(vm: VM) -> Iterator[None]:
    """Dirty pages stay dirty until something syncs them."""
    before = {name: vm.run(["sysctl", "-n", name], check=True).stdout.strip() for name in HELD_DIRTY}
    for name, value in HELD_DIRTY.items():
        vm.run(["sysctl", "-qw", f"{name}={value}"], check=True)
    yield
    if vm.usable:
        # Writing dirty_background_bytes had set this one to zero; writing it back resets the other.
        before["vm.dirty_background_ratio"] = "10"
        for name, value in before.items():
            vm.run(["sysctl", "-qw", f"{name}={value}"])


@pytest.fixture
def slow_xfs(disk_factory: DiskFactory, xfs_factory: XfsFactory, held_dirty: None) -> Xfs:  # noqa: ARG001
    """An XFS on a disk that writes 20 MiB/s, whatever the host's own disk can do."""
    return xfs_factory(on=disk_factory(size="1G", write_bps=SPEED))


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
