"""Disks: their size, their speed, how many."""

from __future__ import annotations

import os
import time

import pytest

from pytest_kernelfs import VM, Disk, DiskFactory
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.qemu.command import DISK_PORTS

MIB = 1 << 20


def _write_seconds(path: str, size: int) -> float:
    """Write to a disk past the page cache."""
    import mmap

    buffer = mmap.mmap(-1, 1 << 20)
    handle = os.open(path, os.O_WRONLY | os.O_DIRECT)
    start = time.monotonic()
    for _ in range(size >> 20):
        os.write(handle, buffer)
    os.close(handle)
    return time.monotonic() - start


def _once(vm: VM, disk: Disk, size: int, least: float, most: float) -> None:
    """Write until once it took less than ``most`` seconds; never less than ``least``.

    A busy host makes any single one slow, a limit makes all of them.
    """
    seconds: list[float] = []
    while not seconds or min(seconds) >= most:
        assert len(seconds) < 20, seconds
        seconds.append(vm.call(_write_seconds, disk.path, size, timeout=300))
    assert min(seconds) > least, seconds


def test_a_disk_has_the_size_that_was_asked_for(vm: VM, disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="300M")
    assert int(vm.run(["blockdev", "--getsize64", disk.path], check=True).stdout) == disk.size == 300 * MIB


def test_disks_are_told_apart_by_serial_number(vm: VM, disk_factory: DiskFactory) -> None:
    small, large = disk_factory(size="64M"), disk_factory(size="128M")
    assert small.path != large.path
    for disk in (small, large):
        name = disk.path.rpartition("/")[2]
        assert vm.run(f"cat /sys/block/{name}/serial", check=True).stdout.strip() == disk.serial


def test_speed_is_part_of_the_disk_and_can_change(vm: VM, disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="256M", write_bps="20M")
    assert "20.0 MiB/s" in repr(disk)
    _once(vm, disk, 20 * MIB, 0.6, 3.0)
    disk.throttle(write_bps="5M")
    _once(vm, disk, 10 * MIB, 1.2, 6.0)
    disk.throttle()
    _once(vm, disk, 20 * MIB, 0.0, 2.5)


def test_full_speed_lasts_as_long_as_its_block(vm: VM, disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="256M", write_bps="5M")
    with disk.full_speed():
        _once(vm, disk, 20 * MIB, 0.0, 2.5)
    assert disk.spec.write_bps == 5 * MIB
    assert vm.call(_write_seconds, disk.path, 10 * MIB, timeout=300) > 1.2


def test_one_disk_too_many_is_said(disk_factory: DiskFactory) -> None:
    disks = [disk_factory(size="16M") for _ in range(DISK_PORTS)]
    assert len({disk.path for disk in disks}) == DISK_PORTS
    with pytest.raises(UsageError, match=f"holds {DISK_PORTS} disks"):
        disk_factory(size="16M")


def _queue(vm: VM, disk: Disk, *names: str) -> list[str]:
    folder = f"/sys/block/{disk.path.rpartition('/')[2]}/queue"
    return vm.run(["cat", *(f"{folder}/{name}" for name in names)], check=True).stdout.splitlines()


def test_the_guest_sees_sectors_and_write_cache(vm: VM, disk: Disk, disk_factory: DiskFactory) -> None:
    names = ("logical_block_size", "physical_block_size", "write_cache")
    assert _queue(vm, disk, *names) == ["512", "512", "write back"]
    other = disk_factory(size="64M", sector_size=4096, cache="writethrough")
    assert _queue(vm, other, *names) == ["4096", "4096", "write through"]
    # The guest cannot switch a cache on that the disk does not have.
    vm.run(f"echo write back > /sys/block/{other.path.rpartition('/')[2]}/cache_type")
    assert _queue(vm, other, "write_cache") == ["write through"]
    recorded = disk_factory(size="64M", sector_size=4096, power_cut=True)
    vm.run(["mkfs.ext4", "-q", "-b", "4096", recorded.path], check=True)
    assert vm.run(["dd", "if=/dev/zero", f"of={recorded.path}", "bs=512", "oflag=direct", "count=1"]).failed
