"""Loop devices lie on files or disks, and go before what they lie on."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import GuestCommandError, InfrastructureError, UsageError
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


def test_by_default_it_lies_on_a_sparse_file_in_memory(
    loop_device_factory: LoopDeviceFactory, machine: FakeMachine
) -> None:
    device = loop_device_factory(size="1G")
    assert device.backing.startswith("/run/kernelfs/loop/")
    assert machine.arguments("make_sparse") == [(device.backing, 1 << 30)]
    assert machine.arguments("attach_loop") == [(device.backing, False, False, 512)]
    assert (device.path, device.size, device.disk) == ("/dev/loop0", 1 << 30, None)


def test_it_goes_before_its_file(
    loop_device_factory: LoopDeviceFactory, machine: FakeMachine, resources: Resources
) -> None:
    device = loop_device_factory()
    resources.close()
    assert machine.calls[-2:] == [("detach_loop", ("/dev/loop0",)), ("remove", (device.backing,))]


def test_on_a_disk_it_needs_no_file(
    loop_device_factory: LoopDeviceFactory, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="2G")
    device = loop_device_factory(on=disk, direct_io=True, sector_size=4096)
    assert machine.arguments("attach_loop") == [("/dev/kfs1", False, True, 4096)]
    assert "make_sparse" not in machine.names
    assert (device.size, device.disk) == (2 << 30, disk)


def test_on_a_file_system_its_file_lies_there(
    loop_device_factory: LoopDeviceFactory,
    xfs_factory: XfsFactory,
    disk_factory: DiskFactory,
    machine: FakeMachine,
) -> None:
    disk = disk_factory()
    xfs = xfs_factory(on=disk)
    device = loop_device_factory(size="1M", on=xfs, read_only=True)
    assert device.backing.startswith(f"{xfs.path}/")
    assert machine.arguments("attach_loop") == [(device.backing, True, False, 512)]
    assert device.disk is disk


def test_that_has_to_be_mounted(
    loop_device_factory: LoopDeviceFactory, xfs_factory: XfsFactory, machine: FakeMachine
) -> None:
    xfs = xfs_factory()
    xfs.umount()
    machine.calls.clear()
    with pytest.raises(UsageError, match=r"loop_device_factory, on: <xfs .*> is not mounted; mount it again"):
        loop_device_factory(on=xfs)
    assert machine.calls == []
    xfs.mount()
    assert loop_device_factory(on=xfs).backing.startswith(xfs.path)


def test_a_file_goes_though_attaching_failed(
    loop_device_factory: LoopDeviceFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["attach_loop"] = GuestCommandError("no loop devices")
    with pytest.raises(GuestCommandError):
        loop_device_factory()
    resources.close()
    assert machine.names == ["make_sparse", "attach_loop", "remove"]


def test_a_file_that_cannot_be_removed_goes_with_its_file_system(
    loop_device_factory: LoopDeviceFactory,
    xfs_factory: XfsFactory,
    disk_factory: DiskFactory,
    machine: FakeMachine,
    resources: Resources,
) -> None:
    loop_device_factory(on=xfs_factory(on=disk_factory()))
    machine.answers["remove"] = GuestCommandError("remove raised OSError: Input/output error")
    resources.close()
    assert machine.names[-4:] == ["detach_loop", "remove", "umount", "detach_disk"]


def test_one_in_memory_has_to_go(
    loop_device_factory: LoopDeviceFactory, machine: FakeMachine, resources: Resources
) -> None:
    loop_device_factory()
    machine.answers["remove"] = GuestCommandError("remove raised OSError: Input/output error")
    with pytest.raises(InfrastructureError, match="the backing file /run/kernelfs/loop"):
        resources.close()


def test_a_wrong_size_is_named(loop_device_factory: LoopDeviceFactory, machine: FakeMachine) -> None:
    with pytest.raises(UsageError, match="loop device size 'x' is no size"):
        loop_device_factory(size="x")
    assert machine.calls == []


def test_a_loop_device_says_what_it_is(loop_device_factory: LoopDeviceFactory) -> None:
    device = loop_device_factory(size="1G")
    assert repr(device) == f"<loop device /dev/loop0 1.0 GiB on {device.backing}>"


def test_a_device_brings_its_own_size(
    loop_device_factory: LoopDeviceFactory, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="64M")
    machine.calls.clear()
    with pytest.raises(UsageError, match="the size is that of the device given as 'on'"):
        loop_device_factory(on=disk, size="5M")
    assert machine.calls == []


def test_without_a_size_it_has_one(loop_device_factory: LoopDeviceFactory) -> None:
    assert loop_device_factory().size == 512 << 20


@pytest.mark.parametrize("size", [0, 256, 1000, -512, "4096", None, 512.0])
def test_sectors_that_no_kernel_knows_are_refused(
    loop_device_factory: LoopDeviceFactory, machine: FakeMachine, size: int
) -> None:
    with pytest.raises(UsageError, match=f"sector_size={size!r} is no power of two from 512 bytes on"):
        loop_device_factory(sector_size=size)
    assert machine.calls == []


def test_its_size_is_a_multiple_of_its_sectors(loop_device_factory: LoopDeviceFactory) -> None:
    with pytest.raises(UsageError, match="size 6144 is no positive multiple of 4096 bytes"):
        loop_device_factory(size=6144, sector_size=4096)
