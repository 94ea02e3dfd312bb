"""Loop devices."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DiskFactory, LoopDevice, LoopDeviceFactory, Xfs
from pytest_kernelfs.errors import GuestCommandError

MIB = 1 << 20


def test_a_loop_device_is_there(vm: VM, loop_device: LoopDevice) -> None:
    assert int(vm.run(["blockdev", "--getsize64", loop_device.path], check=True).stdout) == 512 * MIB
    assert loop_device.backing in vm.run("losetup -l -n -O BACK-FILE", check=True).stdout


def test_sector_size_and_read_only(vm: VM, loop_device_factory: LoopDeviceFactory) -> None:
    device = loop_device_factory(size="64M", sector_size=4096, read_only=True)
    assert vm.run(["blockdev", "--getss", "--getro", device.path], check=True).stdout.split() == ["4096", "1"]


def test_on_a_disk_it_is_as_large_as_the_disk(
    vm: VM, disk_factory: DiskFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    disk = disk_factory(size="96M")
    device = loop_device_factory(on=disk)
    assert device.backing == disk.path
    assert int(vm.run(["blockdev", "--getsize64", device.path], check=True).stdout) == disk.size


def test_on_a_file_system_with_direct_io(vm: VM, xfs: Xfs, loop_device_factory: LoopDeviceFactory) -> None:
    device = loop_device_factory(on=xfs, size="32M", sector_size=4096, direct_io=True)
    assert device.backing.startswith(xfs.path)
    name = device.path.rpartition("/")[2]
    assert vm.run(f"cat /sys/block/{name}/loop/dio", check=True).stdout.strip() == "1"


def test_what_the_kernel_refuses_is_said(loop_device_factory: LoopDeviceFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"cannot attach .*Invalid argument"):
        loop_device_factory(size="32M", sector_size=1000)
