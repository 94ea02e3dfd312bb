"""Devices in memory: modules, parameters, and what goes when."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.ram_disks import BrdFactory, NullBlkFactory, ScsiDebugFactory, ZramFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran

MIB = 1 << 20


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(
        run=ran(),
        is_loaded=False,
        mount_configfs=True,
        make_null_blk="/dev/nullb0",
        make_zram="/dev/zram0",
        find_brd=lambda number, size: f"/dev/ram{number}",
        find_scsi_debug="/dev/sda",
        zram_usage=(3, 2, 1),
    )


def modules(machine: FakeMachine) -> list[list[str]]:
    return [arguments[0] for arguments in machine.arguments("run")]


def test_null_blk(resources: Resources, machine: FakeMachine) -> None:
    device = NullBlkFactory(resources)(size="8M", block_size=4096, memory_backed=False, mbps=10, zoned=True)
    assert isinstance(device, BlockDevice)
    assert (repr(device), device.disk) == ("<null_blk /dev/nullb0 8.0 MiB>", None)
    assert modules(machine) == [["modprobe", "null_blk", "nr_devices=0"]]
    wanted = {"size": "8", "blocksize": "4096", "memory_backed": "0", "mbps": "10", "zoned": "1"}
    assert machine.arguments("make_null_blk") == [(device.name, wanted)]
    device.set(badblocks="+0-7")
    assert machine.arguments("set_null_blk") == [(device.name, {"badblocks": "+0-7"})]
    machine.calls.clear()
    resources.close()
    assert machine.names == ["remove_null_blk", "umount", "unload"]


def test_a_module_that_was_there_stays(resources: Resources, machine: FakeMachine) -> None:
    machine.answers.update(is_loaded=True, mount_configfs=False)
    NullBlkFactory(resources)()
    resources.close()
    assert not {"run", "umount", "unload"} & set(machine.names)


def test_zram(resources: Resources, machine: FakeMachine) -> None:
    device = ZramFactory(resources)(size="8M", algorithm="lz4")
    assert modules(machine) == [["modprobe", "zram", "num_devices=0"]]
    assert machine.arguments("make_zram") == [(8 * MIB, "lz4")]
    usage = device.usage()
    assert (usage.original, usage.compressed, usage.memory) == (3, 2, 1)
    machine.calls.clear()
    resources.close()
    assert machine.calls == [("remove_zram", ("/dev/zram0",)), ("unload", ("zram",))]


def test_brd_has_one_size(resources: Resources, machine: FakeMachine) -> None:
    factory = BrdFactory(resources)
    devices = [factory(size="8M") for _ in range(16)]
    assert modules(machine) == [["modprobe", "brd", "rd_nr=16", "rd_size=8192"]]
    assert [device.path for device in devices] == [f"/dev/ram{number}" for number in range(16)]
    with pytest.raises(UsageError, match="all devices of brd have one size"):
        factory(size="16M")
    with pytest.raises(UsageError, match="16 devices, and all are taken"):
        factory(size="8M")
    machine.calls.clear()
    resources.close()
    assert machine.calls == [("unload", ("brd",))]


def test_scsi_debug_is_loaded_for_its_disk(resources: Resources, machine: FakeMachine) -> None:
    device = ScsiDebugFactory(resources)(size="8M", sector_size=4096, delay=0)
    words = ["modprobe", "scsi_debug", "dev_size_mb=8", "sector_size=4096", "delay=0"]
    assert modules(machine) == [["modprobe", "sd_mod"], words]
    assert (device.path, device.size) == ("/dev/sda", 8 * MIB)
    device.remove()
    assert machine.calls[-1] == ("unload", ("scsi_debug", "/dev/sda"))


def test_scsi_debug_makes_one_disk_at_a_time(resources: Resources, machine: FakeMachine) -> None:
    factory = ScsiDebugFactory(resources)
    factory(size="8M")
    machine.answers["is_loaded"] = True
    with pytest.raises(UsageError, match=r"<scsi_debug /dev/sda 8.0 MiB> is there already"):
        factory(size="8M")
    machine.answers["is_loaded"] = False
    factory(size="4M")


def test_what_the_kernel_lacks_is_named(resources: Resources, machine: FakeMachine) -> None:
    machine.answers["run"] = ran(1, stderr="not found")
    with pytest.raises(GuestCommandError, match=r"null_blk \(CONFIG_BLK_DEV_NULL_BLK\) cannot be used"):
        NullBlkFactory(resources)()
    with pytest.raises(GuestCommandError, match=r"brd \(CONFIG_BLK_DEV_RAM\) cannot be used"):
        BrdFactory(resources)()


def test_wrong_sizes_are_told_before_anything_is_loaded(resources: Resources, machine: FakeMachine) -> None:
    with pytest.raises(UsageError, match="null_blk size '1K' is no positive multiple of 1 MiB"):
        NullBlkFactory(resources)(size="1K")
    with pytest.raises(UsageError, match="scsi_debug size 0 is no positive multiple of 1 MiB"):
        ScsiDebugFactory(resources)(size=0)
    with pytest.raises(UsageError, match="zram size 100 is no positive multiple of 4096"):
        ZramFactory(resources)(size=100)
    with pytest.raises(UsageError, match="brd size 100 is no positive multiple of 4096"):
        BrdFactory(resources)(size=100)
    assert machine.calls == []
