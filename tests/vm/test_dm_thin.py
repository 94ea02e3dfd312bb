"""Thin pools: what they say of themselves, their volumes and snapshots, and when they are full."""

from __future__ import annotations

import errno

import pytest

from pytest_kernelfs import VM, DmFactory, LoopDeviceFactory, ThinPool, XfsFactory
from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.guest import mounts
from tests.vm.direct import write_direct

MIB = 1 << 20


@pytest.fixture
def pool(dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory) -> ThinPool:
    return dm_factory.thin_pool(
        meta=loop_device_factory(size="8M"),
        data=loop_device_factory(size="16M"),
        features=["error_if_no_space"],
    )


def write(vm: VM, path: str, mebibytes: int, first: int = 0) -> int:
    """Gives the errno."""
    return int(vm.call(write_direct, path, b"full", mebibytes * MIB, first * MIB)[0])


@pytest.mark.dmesg_allow("device-mapper: thin", "I/O error", "lost")
def test_volumes_take_what_is_written_until_the_pool_is_full(vm: VM, pool: ThinPool) -> None:
    empty = pool.status()
    assert (empty.used_data, empty.total_data, empty.block_size) == (0, 16 * 16, 65536)
    assert (empty.mode, empty.needs_check, empty.total_metadata) == ("rw", False, 2048)
    volume = pool.thin(size="1G")
    assert (volume.size, volume.mapped()) == (1 << 30, 0)
    assert write(vm, volume.path, 8) == 0
    assert (volume.mapped(), pool.status().used_data_bytes) == (8 * MIB, 8 * MIB)
    copy = pool.snapshot(of=volume)
    assert pool.status().used_data_bytes == 8 * MIB
    assert write(vm, volume.path, 2, first=4) == 0
    # What both had is kept for the copy: two more MiB.
    assert pool.status().used_data_bytes == 10 * MIB
    volume.delete()
    assert pool.status().used_data_bytes == 8 * MIB
    copy.delete()
    assert pool.status().used_data_bytes == 0
    with pytest.raises(GuestCommandError, match="cannot send the message 'delete"):
        copy.delete()

    volume = pool.thin(size="1G")
    assert write(vm, volume.path, 12) == 0
    assert pool.status().mode == "rw"
    assert write(vm, volume.path, 8, first=12) == errno.ENOSPC
    full = pool.status()
    assert (full.used_data, full.mode) == (full.total_data, "out_of_data_space")


def test_a_snapshot_of_a_mounted_file_system_is_sound(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory, xfs_factory: XfsFactory
) -> None:
    pool = dm_factory.thin_pool(
        meta=loop_device_factory(size="8M"), data=loop_device_factory(size="512M"), block_size="128K"
    )
    volume = pool.thin(size="2G")
    xfs = xfs_factory(on=volume)
    xfs.write("before", "2M")
    # Not synced: the kernel freezes the file system for the moment.
    copy = pool.snapshot(of=volume)
    xfs.write("after", "2M")
    vm.guest(mounts.mount, copy.path, "/mnt/copy", "xfs", "nouuid,ro,norecovery")
    assert vm.run(["ls", "/mnt/copy"], check=True).stdout.split() == ["before"]
    assert vm.run(["cmp", "/mnt/copy/before", f"{xfs.path}/before"]).succeeded
    vm.guest(mounts.umount, "/mnt/copy")
