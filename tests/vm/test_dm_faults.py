"""Devices that are slow, lose data or fail: each fault is planted, seen, and taken away again."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from pytest_kernelfs import VM, BrdFactory, DmFactory, LoopDeviceFactory, XfsFactory
from pytest_kernelfs.errors import GuestCommandError
from tests.vm.direct import read_direct, write_direct


def test_a_delay_is_what_it_says(vm: VM, dm_factory: DmFactory, brd_factory: BrdFactory) -> None:
    device = dm_factory.delay(on=brd_factory(size="16M"))

    def write() -> float:
        failed, seconds = vm.call(write_direct, device.path, b"text")
        assert failed == 0
        return float(seconds)

    def read() -> float:
        failed, text, seconds = vm.call(read_direct, device.path)
        assert (failed, text) == (0, b"text")
        return float(seconds)

    # On a busy host, a request takes its time now and then, and a tick of the kernel's clock, in which
    # delays are counted, can come late: so one that is quick counts without a delay, the longest with one.
    def has_none(request: Callable[[], float]) -> bool:
        return any(request() < 0.15 for _ in range(20))

    assert has_none(write)
    assert has_none(read)
    device.set(write_ms=200)
    assert max(write() for _ in range(3)) >= 0.2
    assert has_none(read)
    device.set(write_ms=0, read_ms=300)
    assert has_none(write)
    slow = sorted(read() for _ in range(3))
    assert slow[2] >= 0.3
    assert slow[1] > 0.15
    assert device.table() == ["0 32768 delay 1:0 0 300 1:0 0 0 1:0 0 0"]


def test_flakey_does_its_features_and_error_fails_all(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    device = dm_factory.flakey(on=loop_device_factory(size="16M"), features=["drop_writes"])
    assert vm.call(write_direct, device.path, b"kept")[0] == 0
    device.fail()
    # The device says that it wrote.
    assert vm.call(write_direct, device.path, b"lost")[0] == 0
    assert vm.call(read_direct, device.path)[:2] == (0, b"kept")
    device.set(features=["error_writes"])
    assert vm.call(write_direct, device.path, b"up")[0] == 0
    device.fail()
    assert vm.call(write_direct, device.path, b"refused")[0] == errno.EIO
    assert vm.call(read_direct, device.path)[:2] == (0, b"up")
    device.set(features=[])
    device.fail()
    assert vm.call(read_direct, device.path)[0] == errno.EIO
    device.heal()
    assert vm.call(write_direct, device.path, b"whole")[0] == 0
    assert vm.call(read_direct, device.path)[:2] == (0, b"whole")
    with pytest.raises(GuestCommandError, match="flakey: Unrecognised flakey feature requested"):
        device.set(features=["no_such_feature"])
    # What the kernel refused has changed nothing.
    assert vm.call(read_direct, device.path)[:2] == (0, b"whole")
    hopeless = dm_factory.error(size="1M")
    assert hopeless.size == 1 << 20
    assert vm.call(write_direct, hopeless.path, b"x")[0] == errno.EIO
    assert vm.call(read_direct, hopeless.path)[0] == errno.EIO


@pytest.mark.dmesg_allow("XFS")
def test_xfs_on_a_device_that_fails_shuts_down(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory, xfs_factory: XfsFactory
) -> None:
    device = dm_factory.linear(on=loop_device_factory())
    xfs = xfs_factory(on=device)
    xfs.write("before", "1M")
    xfs.sync()
    assert not [record for record in vm.dmesg() if "XFS" in record.text and "rror" in record.text]
    device.fail()
    assert vm.run(f"touch {xfs.path}/after && sync -f {xfs.path}").failed
    log = "\n".join(record.text for record in vm.dmesg())
    assert "log I/O error" in log
    assert "shut down" in log.lower() or "shutting down" in log.lower()
    assert vm.run(["ls", xfs.path]).failed
    device.heal()
    xfs.umount()
    xfs.mount([])
    assert vm.run(["ls", xfs.path], check=True).stdout.split() == ["before"]
    # Left as it is, mounted and shut down, to the teardown.
    device.fail()
    assert vm.run(f"touch {xfs.path}/again && sync -f {xfs.path}").failed
