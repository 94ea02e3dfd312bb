"""Loop devices."""

from __future__ import annotations

import re

import pytest

from pytest_kernelfs import VM, DiskFactory, LoopDevice, LoopDeviceFactory, Xfs
from pytest_kernelfs.errors import GuestCommandError

MIB = 1 << 20


def test_a_loop_device_is_there(vm: VM, loop_device: LoopDevice) -> None:
    assert int(vm.run(["blockdev", "--getsize64", loop_device.path], check=True).stdout) == 512 * MIB
    assert loop_device.backing in vm.run("losetup -l -n -O BACK-FILE", check=True).stdout


def test_on_a_disk_it_is_as_large_as_the_disk(
    vm: VM, disk_factory: DiskFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    disk = disk_factory(size="96M")
    device = loop_device_factory(on=disk)
    assert device.backing == disk.path
    assert int(vm.run(["blockdev", "--getsize64", device.path], check=True).stdout) == disk.size


def test_sectors_larger_than_the_kernel_takes(vm: VM, loop_device_factory: LoopDeviceFactory) -> None:
    try:
        device = loop_device_factory(size="32M", sector_size=8192)
    except GuestCommandError as error:
        assert re.search(r"cannot attach .*Invalid argument; .*no sectors of 8192 bytes", str(error))  # noqa: PT017
        assert "/dev/loop" not in vm.run("losetup -l -n").stdout
    else:
        assert vm.run(["blockdev", "--getss", device.path]).stdout.strip() == "8192"


def test_direct_io_that_cannot_be_had_is_not_done_without(
    vm: VM, disk_factory: DiskFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    disk = disk_factory(size="32M", sector_size=4096)
    with pytest.raises(
        GuestCommandError, match=r"no direct I/O with sectors of 512 bytes to the device /dev/v"
    ):
        loop_device_factory(on=disk, direct_io=True)
    assert "/dev/loop" not in vm.run("losetup -l -n").stdout
    device = loop_device_factory(on=disk, direct_io=True, sector_size=4096)
    assert _sysfs(vm, device, "loop/dio") == "1"


def test_direct_io_to_memory_is_had_or_refused(vm: VM, loop_device_factory: LoopDeviceFactory) -> None:
    try:
        device = loop_device_factory(size="32M", direct_io=True)
    except GuestCommandError as error:
        assert "no direct I/O with sectors of 512 bytes to a file on" in str(error)  # noqa: PT017
    else:
        assert _sysfs(vm, device, "loop/dio") == "1"


def test_it_is_what_it_was_asked_to_be(
    vm: VM, xfs: Xfs, loop_device: LoopDevice, loop_device_factory: LoopDeviceFactory
) -> None:
    names = ("queue/logical_block_size", "loop/dio", "ro", "size")
    assert [_sysfs(vm, loop_device, name) for name in names] == ["512", "0", "0", str(512 * MIB // 512)]
    device = loop_device_factory(on=xfs, size="64M", sector_size=4096, read_only=True, direct_io=True)
    assert [_sysfs(vm, device, name) for name in names] == ["4096", "1", "1", str(64 * MIB // 512)]
    assert int(vm.run(["stat", "-c", "%b", device.backing]).stdout) < MIB // 512
    assert vm.run(["dd", "if=/dev/zero", f"of={device.path}", "count=8", "oflag=direct"]).failed


def _sysfs(vm: VM, device: LoopDevice, name: str) -> str:
    return vm.get(f"/sys/block/{device.path.rpartition('/')[2]}/{name}").decode().strip()
