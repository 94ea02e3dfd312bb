"""What all device-mapper devices can do, and how they stack."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DiskFactory, DmFactory, LoopDeviceFactory, NullBlkFactory
from pytest_kernelfs.errors import GuestCommandError
from tests.vm.direct import read_direct, write_direct

MIB = 1 << 20


def test_devices_stack_and_go_again(
    vm: VM,
    dm_factory: DmFactory,
    disk_factory: DiskFactory,
    loop_device_factory: LoopDeviceFactory,
) -> None:
    disk = disk_factory(size="400M")
    delayed = dm_factory.delay(on=dm_factory.linear(on=disk, offset="16M"))
    assert (delayed.size, delayed.disk) == (384 * MIB, disk)
    assert int(vm.run(["blockdev", "--getsize64", delayed.path], check=True).stdout) == delayed.size
    # With a key of our own, to know that the text that is to be seen below is not empty.
    secret = dm_factory.crypt(on=loop_device_factory(on=delayed), key=bytes(range(64)))
    assert vm.call(write_direct, secret.path, b"plain")[0] == 0
    assert vm.call(read_direct, secret.path)[1] == b"plain"
    assert vm.call(read_direct, delayed.path)[1] not in (b"", b"plain")
    names = vm.run("dmsetup ls", check=True).stdout
    assert all(name in names for name in ("linear-", "delay-", "crypt-"))


def test_any_table(vm: VM, dm_factory: DmFactory, null_blk_factory: NullBlkFactory) -> None:
    below = null_blk_factory(size="8M")
    device = dm_factory.table(
        "two halves", [f"0 4096 linear {below.path} 8192", f"4096 4096 linear {below.path} 0"], on=[below]
    )
    assert vm.call(write_direct, below.path, b"first")[0] == 0
    assert vm.call(read_direct, device.path, 2 * MIB)[1] == b"first"
    assert [line.rpartition(":")[0].rpartition(" ")[0] for line in device.table()] == device.status_lines()
    assert device.status_lines() == ["0 4096 linear", "4096 4096 linear"]
    device.reload(["0 4096 zero"])
    assert device.size == 2 * MIB
    device.remove()
    # Gone is gone, and the teardown does not mind.
    device.remove()
    assert "two" not in vm.run("dmsetup ls").stdout


def test_what_the_kernel_refuses_is_said(dm_factory: DmFactory, null_blk_factory: NullBlkFactory) -> None:
    below = null_blk_factory(size="8M")
    with pytest.raises(
        GuestCommandError, match=r"0 99999 linear .*Invalid argument; the kernel said: .*too small"
    ):
        dm_factory.table("beyond", [f"0 99999 linear {below.path} 0"])
    with pytest.raises(
        GuestCommandError, match=r"target nonsense needs the module dm_nonsense \(CONFIG_DM_NON"
    ):
        dm_factory.table("unknown", ["0 8 nonsense"])
    device = dm_factory.linear(on=below)
    with pytest.raises(GuestCommandError, match="cannot send the message 'hello'"):
        device.message("hello")
    with pytest.raises(GuestCommandError, match=r"create the device .*: Device or resource busy"):
        dm_factory.table(device.name, ["0 8 error"])


def test_io_waits_while_a_device_is_suspended(
    vm: VM, dm_factory: DmFactory, null_blk_factory: NullBlkFactory
) -> None:
    device = dm_factory.linear(on=null_blk_factory(size="8M"))
    write = f"echo x | dd of={device.path} bs=4096 conv=sync,fsync 2>&-; touch /run/written"
    with device.suspended():
        assert device.is_suspended
        vm.run(f"({write}) > /dev/null 2>&1 &", check=True)
        assert vm.run("sleep 0.3; test -e /run/written").failed
    vm.run("until test -e /run/written; do sleep 0.01; done", check=True)
    device.resume()
    # Left suspended: the teardown resumes it.
    device.suspend(flush=False, freeze=False)
