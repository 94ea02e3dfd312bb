"""Logged writes replay to a file system that is exactly what it was at a mark."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DmFactory, FilesystemFactory, LoopDeviceFactory
from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.guest import mounts
from tests.vm.direct import discard, read_direct, write_direct

SIZE = "64M"
MIB = 1 << 20


def test_a_file_system_is_as_it_was_at_each_mark(
    vm: VM,
    dm_factory: DmFactory,
    loop_device_factory: LoopDeviceFactory,
    filesystem_factory: FilesystemFactory,
) -> None:
    device = dm_factory.log_writes(on=loop_device_factory(size=SIZE), log=loop_device_factory(size="128M"))
    ext4 = filesystem_factory("ext4", on=device)
    # Ext4 writes the rest of its tables in the background.
    ext4.sync()
    device.mark("made")
    for name in ("one", "two"):
        ext4.write(name, "1M")
        ext4.sync()
        device.mark(name)
    sums = vm.run(f"cd {ext4.path} && sha256sum one two", check=True).stdout
    ext4.write("three", "1M")
    ext4.umount()
    assert device.marks() == ["made", "one", "two"]

    target = loop_device_factory(size=SIZE)

    def replayed(mark: str) -> list[str]:
        assert device.replay(to=mark, onto=target) > 0
        vm.guest(mounts.mount, target.path, "/mnt/replayed", "ext4")
        try:
            if mark == "two":
                assert vm.run("cd /mnt/replayed && sha256sum one two", check=True).stdout == sums
            return vm.run("ls -I lost+found /mnt/replayed", check=True).stdout.split()
        finally:
            vm.guest(mounts.umount, "/mnt/replayed")

    # The later mark first: what it brought must not be left for the earlier one.
    assert replayed("two") == ["one", "two"]
    assert replayed("one") == ["one"]
    assert replayed("made") == []
    vm.run(["e2fsck", "-f", "-n", target.path], check=True)

    with pytest.raises(GuestCommandError, match=r"no mark 'nowhere' .* made, one, two"):
        device.replay(to="nowhere", onto=target)


def test_discards_and_the_end_of_the_log(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    device = dm_factory.log_writes(on=loop_device_factory(size="4M"), log=loop_device_factory(size="6M"))
    target = loop_device_factory(size="4M")

    assert vm.call(write_direct, device.path, b"full", MIB)[0] == 0
    device.mark("full")
    vm.call(discard, device.path, MIB)
    device.mark("empty")
    device.replay(to="full", onto=target)
    assert vm.call(read_direct, target.path)[1] == b"full"
    # Onto what is there.
    device.replay(to="empty", onto=target, blank=False)
    assert vm.call(read_direct, target.path)[1] == b""
    for _ in range(2):
        vm.call(write_direct, device.path, b"much", 4 * MIB)
    with pytest.raises(
        GuestCommandError, match=r"the mark 'late' did not reach the log .* .* the log is full"
    ):
        device.mark("late")
