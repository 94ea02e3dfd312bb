"""What counts as a block device, and lifting the limits of the disk below one."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.resources.block import BlockDevice, check_device, full_speed
from pytest_kernelfs.resources.disk import Disk, DiskFactory
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


class Stacked:
    """Somebody else's device."""

    def __init__(self, resources: Resources, disk: Disk | None) -> None:
        self.resources, self.disk = resources, disk
        self.path, self.size = "/dev/mapper/stacked", 1 << 20


def test_what_has_a_path_a_size_and_a_disk_is_a_device(
    resources: Resources, disk_factory: DiskFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    devices: list[BlockDevice] = [disk_factory(), loop_device_factory(), Stacked(resources, None)]
    for device in devices:
        check_device("on", device)


def test_a_mount_and_a_path_are_none(xfs_factory: XfsFactory) -> None:
    for wrong in (xfs_factory(), "/dev/vda", None):
        with pytest.raises(UsageError, match=r"loop_device_factory\(on=…\): .* is no block device"):
            check_device("loop_device_factory(on=…)", wrong)


def test_a_loop_device_lies_on_any_device(
    resources: Resources,
    disk_factory: DiskFactory,
    loop_device_factory: LoopDeviceFactory,
    machine: FakeMachine,
) -> None:
    disk = disk_factory()
    device = loop_device_factory(on=Stacked(resources, disk))
    assert machine.arguments("attach_loop") == [("/dev/mapper/stacked", False, False, 512)]
    assert (device.size, device.disk) == (1 << 20, disk)


def test_the_disk_below_runs_at_full_speed_meanwhile(
    resources: Resources, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="1M", write_bps="1M")
    with full_speed(Stacked(resources, disk)):
        assert machine.arguments("throttle_disk") == [("kfs1", DiskSpec(1 << 20))]
    assert machine.arguments("throttle_disk")[-1] == ("kfs1", DiskSpec(1 << 20, 1 << 20))


def test_without_a_disk_below_there_is_nothing_to_lift(resources: Resources, machine: FakeMachine) -> None:
    for below in (Stacked(resources, None), None):
        with full_speed(below):
            pass
    assert machine.calls == []
