"""Block devices in memory: they are there, hold what is written, and go."""

from __future__ import annotations

import errno

import pytest

from pytest_kernelfs import (
    VM,
    BrdFactory,
    NullBlkFactory,
    RamDisk,
    ScsiDebugFactory,
    ZramFactory,
)
from pytest_kernelfs.errors import GuestCommandError, UsageError
from tests.vm.direct import read_direct, write_direct

MIB = 1 << 20


def check(vm: VM, device: RamDisk, keeps: bool = True) -> None:
    """It has its size, and gives back what was written past the page cache."""
    assert int(vm.run(["blockdev", "--getsize64", device.path], check=True).stdout) == device.size
    assert vm.call(write_direct, device.path, b"kept", MIB)[0] == 0
    failed, found, _ = vm.call(read_direct, device.path, MIB - 4096)
    assert failed == 0
    assert (found == b"kept") is keeps


def test_null_blk(vm: VM, null_blk_factory: NullBlkFactory) -> None:
    device = null_blk_factory(size="64M", block_size=4096)
    check(vm, device)
    assert vm.run(["blockdev", "--getss", device.path]).stdout.strip() == "4096"
    check(vm, null_blk_factory(size="1T", memory_backed=False), keeps=False)
    bad = null_blk_factory(size="4M", badblocks="+0-7")
    assert vm.call(read_direct, bad.path)[0] == errno.EIO
    assert vm.call(read_direct, bad.path, 4096)[0] == 0
    bad.set(badblocks="-0-7")
    assert vm.call(read_direct, bad.path)[0] == 0
    device.remove()
    assert vm.run(["test", "-e", device.path]).failed
    with pytest.raises(GuestCommandError, match=r"no attribute 'speed'; it has: .*blocksize"):
        null_blk_factory(size="4M", speed=3)


def test_zram(vm: VM, zram_factory: ZramFactory) -> None:
    device = zram_factory(size="64M")
    check(vm, device)
    usage = device.usage()
    assert usage.original == MIB
    assert usage.compressed < usage.original
    assert zram_factory(size="1M").path != device.path
    with pytest.raises(GuestCommandError, match=r"no algorithm 'none-such' at hand; it names: .*lz"):
        zram_factory(size="4M", algorithm="none-such")
    device.remove()
    assert vm.run(["test", "-e", device.path]).failed


def test_brd(vm: VM, brd_factory: BrdFactory) -> None:
    # A kernel's own size: the module is loaded already.
    vm.modprobe("brd", rd_nr=1, rd_size=1024)
    one, two = brd_factory(size="16M"), brd_factory(size="16M")
    check(vm, one)
    assert vm.run(["cmp", "-n", "4096", two.path, "/dev/zero"]).succeeded
    with pytest.raises(UsageError, match="all devices of brd have one size"):
        brd_factory(size="8M")


def test_scsi_debug(vm: VM, scsi_debug_factory: ScsiDebugFactory) -> None:
    device = scsi_debug_factory(size="16M", sector_size=4096, delay=0)
    check(vm, device)
    assert vm.run(["blockdev", "--getss", device.path]).stdout.strip() == "4096"
    vm.run(f"sleep 60 < {device.path} > /dev/null 2>&1 &", check=True)
    vm.run("until pgrep -x sleep; do sleep 0.01; done", check=True)
    in_use = r"cannot unload the module scsi_debug: .*; in use by \d+ \(sleep\)"
    with pytest.raises(GuestCommandError, match=in_use):
        device.remove()
    with pytest.raises(UsageError, match="is there already"):
        scsi_debug_factory(size="8M")
    vm.run("pkill -x sleep", check=True)
    device.remove()
    device.remove()
    check(vm, scsi_debug_factory(size="8M"))
