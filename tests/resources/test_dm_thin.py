"""Thin pools: the volumes that are asked for, and the status that is read."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.dm_thin import ThinPool, ThinPoolStatus
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


@pytest.fixture
def machine() -> FakeMachine:
    machine = FakeMachine(available_targets=["error", "thin-pool", "thin"], create="/dev/dm-0", message="")
    machine.answers["make_thin"] = lambda *_: f"/dev/dm-{len(machine.arguments('make_thin'))}"
    machine.answers["attach_loop"] = lambda *_: f"/dev/loop{len(machine.arguments('attach_loop')) - 1}"
    return machine


@pytest.fixture
def pool(resources: Resources, loop_device_factory: LoopDeviceFactory) -> ThinPool:
    return DmFactory(resources).thin_pool(
        meta=loop_device_factory(size="2M"),
        data=loop_device_factory(size="16M"),
        block_size="128K",
        low_water=4,
        features=["error_if_no_space", "ignore_discard"],
    )


def test_a_pool_begins_with_blank_metadata(pool: ThinPool, machine: FakeMachine) -> None:
    assert machine.arguments("erase_start") == [("/dev/loop0", 4096)]
    arguments = "/dev/loop0 /dev/loop1 256 4 2 error_if_no_space ignore_discard"
    assert machine.arguments("create") == [(pool.name, [(0, 32768, "thin-pool", arguments)])]
    assert pool.block_size == 128 << 10


def test_volumes_and_snapshots(pool: ThinPool, machine: FakeMachine) -> None:
    volume = pool.thin(size="1G")
    copy = pool.snapshot(of=volume)
    assert machine.arguments("make_thin") == [
        (pool.name, "create_thin 1", volume.name, [(0, 1 << 21, "thin", "/dev/dm-0 1")], ""),
        (pool.name, "create_snap 2 1", copy.name, [(0, 1 << 21, "thin", "/dev/dm-0 2")], volume.name),
    ]
    assert (copy.origin, copy.pool, copy.size) == (volume, pool, 1 << 30)
    volume.delete()
    assert machine.calls[-2:] == [("remove", (volume.name,)), ("message", (pool.name, "delete 1", 0))]


def test_volumes_of_other_pools_are_refused(
    pool: ThinPool, resources: Resources, loop_device_factory: LoopDeviceFactory
) -> None:
    device = loop_device_factory(size="2M")
    other = DmFactory(resources).thin_pool(meta=device, data=device)
    with pytest.raises(UsageError, match="no volume of"):
        pool.snapshot(of=other.thin(size="1M"))
    with pytest.raises(UsageError, match="no volume of"):
        pool.delete(other.thin(size="1M"))


def test_what_goes_first(pool: ThinPool, machine: FakeMachine, resources: Resources) -> None:
    volume = pool.thin(size="1M")
    resources.close()
    assert machine.arguments("remove")[:2] == [(volume.name,), (pool.name,)]


def test_a_pool_says_how_full_it_is(pool: ThinPool, machine: FakeMachine) -> None:
    text = "7 12/512 100/128 - rw discard_passdown queue_if_no_space - 1024 "
    machine.answers["table"] = [(0, 32768, "thin-pool", text)]
    status = pool.status()
    assert status == ThinPoolStatus(12, 512, 100, 128, "rw", False, 7, 128 << 10)
    assert (status.used_data_bytes, status.used_metadata_bytes) == (100 << 17, 12 << 12)


def test_a_volume_says_what_it_has_blocks_for(pool: ThinPool, machine: FakeMachine) -> None:
    volume = pool.thin(size="1M")
    machine.answers["table"] = [(0, 2048, "thin", "256 2047")]
    assert volume.mapped() == 128 << 10
    machine.answers["table"] = [(0, 2048, "thin", "Fail")]
    with pytest.raises(GuestCommandError, match="is: Fail"):
        volume.mapped()


@pytest.mark.parametrize(
    ("text", "mode", "needs_check"),
    [
        ("0 1/2 3/4 - out_of_data_space discard_passdown error_if_no_space - 1", "out_of_data_space", False),
        ("0 1/2 3/4 - ro discard_passdown queue_if_no_space needs_check 1", "ro", True),
        ("Fail", "Fail", False),
        ("Error", "Fail", False),
    ],
)
def test_pools_in_trouble(text: str, mode: str, needs_check: bool) -> None:
    status = ThinPoolStatus.parse(text, 65536)
    assert (status.mode, status.needs_check) == (mode, needs_check)


def test_a_status_that_is_something_else() -> None:
    with pytest.raises(GuestCommandError, match="cannot be understood: 'what'"):
        ThinPoolStatus.parse("what", 65536)
