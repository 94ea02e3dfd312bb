"""What tests leave of devices, in a machine that they share: nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_kernelfs import (
    VM,
    BrdFactory,
    CgroupFactory,
    DmFactory,
    FilesystemFactory,
    LoopDeviceFactory,
    NullBlkFactory,
    ScsiDebugFactory,
    XfsFactory,
    ZramFactory,
)

pytestmark = pytest.mark.isolation("module")


@pytest.mark.dmesg_allow("XFS", "I/O error")
@pytest.mark.parametrize("round_", [1, 2])
def test_all_is_taken_down(
    vm: VM,
    dm_factory: DmFactory,
    null_blk_factory: NullBlkFactory,
    zram_factory: ZramFactory,
    brd_factory: BrdFactory,
    scsi_debug_factory: ScsiDebugFactory,
    xfs_factory: XfsFactory,
    round_: int,
) -> None:
    left = vm.run("dmsetup ls; ls /sys/block; ls /sys/kernel/config/nullb").stdout
    assert not any(name in left for name in ("dm-", "nullb1", "null_blk", "zram", "ram0", "sda"))
    pool = dm_factory.thin_pool(meta=brd_factory(size="8M"), data=null_blk_factory(size="400M"))
    volume = pool.thin(size="1G")
    pool.snapshot(of=volume)
    flakey = dm_factory.flakey(on=volume)
    xfs_factory(on=flakey)
    flakey.fail()
    dm_factory.log_writes(on=scsi_debug_factory(size="8M"), log=zram_factory(size="16M")).suspend()


def wait_until_it_is_stuck(pid: int) -> None:
    deadline = time.monotonic() + 60
    while "(touch) D " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.dmesg_allow("EXT4-fs", "Aborting journal", "I/O error")
@pytest.mark.usefixtures("newest_only")
def test_what_waits_and_what_was_shut_down_goes(
    vm: VM,
    dm_factory: DmFactory,
    cgroup_factory: CgroupFactory,
    filesystem_factory: FilesystemFactory,
    loop_device_factory: LoopDeviceFactory,
) -> None:
    holds = filesystem_factory("ext4", size="128M")
    device = dm_factory.linear(on=loop_device_factory(on=holds, size="64M"))
    waits = filesystem_factory("ext4", on=device)
    gone = filesystem_factory("ext4", size="64M")
    loop_device_factory(on=gone, size="16M")
    gone.shutdown()
    device.suspend()
    vm.call(wait_until_it_is_stuck, cgroup_factory().start(["touch", f"{waits.path}/file"]).pid)
