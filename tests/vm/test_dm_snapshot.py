"""Snapshots keep what the origin held."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DmFactory, LoopDeviceFactory
from pytest_kernelfs.errors import GuestCommandError
from tests.vm.direct import read_direct, write_direct

MIB = 1 << 20


def fill(vm: VM, path: str, word: bytes, size: int = MIB) -> None:
    assert vm.call(write_direct, path, word, size)[0] == 0


def first_word(vm: VM, path: str) -> bytes:
    failed, word, _ = vm.call(read_direct, path)
    assert failed == 0
    return bytes(word)


@pytest.mark.dmesg_allow("device-mapper: snapshots")
def test_a_snapshot_does_not_see_what_the_origin_is_given(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    origin = dm_factory.snapshot_origin(on=loop_device_factory(size="16M"))
    fill(vm, origin.path, b"old")
    snapshot = dm_factory.snapshot(origin=origin, cow=loop_device_factory(size="4M"))
    empty = snapshot.status()
    assert (empty.valid, empty.total) == (True, 4 * MIB)
    fill(vm, origin.path, b"new")
    assert (first_word(vm, origin.path), first_word(vm, snapshot.path)) == (b"new", b"old")
    fill(vm, snapshot.path, b"own", 65536)
    assert (first_word(vm, origin.path), first_word(vm, snapshot.path)) == (b"new", b"own")
    used = snapshot.status()
    assert MIB <= used.used - used.metadata <= used.total
    # More than the copy-on-write device can hold.
    fill(vm, origin.path, b"much", 8 * MIB)
    assert not snapshot.status().valid


def test_a_snapshot_of_what_does_not_change(
    vm: VM, dm_factory: DmFactory, loop_device_factory: LoopDeviceFactory
) -> None:
    nothing = dm_factory.zero(size="1T")
    device = dm_factory.snapshot(
        origin=nothing, cow=loop_device_factory(size="4M"), persistent=False, chunk_size="16K"
    )
    assert device.size == 1 << 40
    fill(vm, device.path, b"much")
    assert first_word(vm, device.path) == b"much"
    with pytest.raises(
        GuestCommandError, match=r"cannot remove the device zero-.: it is still open .*dm-1 lies on it"
    ):
        nothing.remove()
