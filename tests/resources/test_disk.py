"""Disks have a size and a speed, and are gone after the test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


def test_size_and_speed_are_given_to_the_machine(disk_factory: DiskFactory, machine: FakeMachine) -> None:
    disk = disk_factory(size="4G", write_bps="20M", read_bps=4096, iops=500)
    assert machine.arguments("attach_disk") == [(DiskSpec(4 << 30, 20 << 20, 4096, 500),)]
    assert disk.size == 4 << 30


def test_the_guest_looks_for_the_disk_by_number_and_size(
    disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="1M")
    assert machine.arguments("find_disk") == [("kfs1", 1 << 20)]
    assert disk.path == "/dev/kfs1"


@pytest.mark.parametrize("size", [0, 511, 513, "1B"])
def test_a_size_must_be_a_multiple_of_a_sector(disk_factory: DiskFactory, size: int | str) -> None:
    with pytest.raises(UsageError, match=r"disk size .* is no positive multiple of 512 bytes"):
        disk_factory(size=size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "disk size 'huge' is no size"),
        ({"size": -512}, "disk size -512 is negative"),
        ({"write_bps": "20MB/s"}, "write_bps '20MB/s' is no size"),
        ({"read_bps": -1}, "read_bps -1 is negative"),
        ({"iops": "many"}, "iops 'many' is no size"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_attached(
    disk_factory: DiskFactory, machine: FakeMachine, arguments: dict[str, int | str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        disk_factory(**arguments)  # type: ignore[arg-type]
    assert machine.calls == []


def test_a_disk_says_what_it_is(disk_factory: DiskFactory) -> None:
    assert repr(disk_factory(size="1G")) == "<disk /dev/kfs1 1.0 GiB>"
    limited = disk_factory(size="1G", write_bps="20M", iops=100)
    assert repr(limited) == "<disk /dev/kfs2 1.0 GiB write 20.0 MiB/s 100 IOPS>"


def test_a_disk_goes_with_the_test(
    disk_factory: DiskFactory, machine: FakeMachine, resources: Resources
) -> None:
    disk_factory()
    resources.close()
    assert machine.arguments("detach_disk") == [("kfs1",)]


def test_a_disk_that_the_guest_does_not_see_goes_too(
    disk_factory: DiskFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["find_disk"] = GuestCommandError("no disk")
    with pytest.raises(GuestCommandError):
        disk_factory()
    resources.close()
    assert machine.arguments("detach_disk") == [("kfs1",)]


def test_the_speed_can_be_changed(disk_factory: DiskFactory, machine: FakeMachine) -> None:
    disk = disk_factory(size="1M", write_bps="20M")
    disk.throttle(read_bps="5M")
    assert machine.arguments("throttle_disk") == [("kfs1", DiskSpec(1 << 20, 0, 5 << 20))]
    assert disk.spec.read_bps == 5 << 20


def test_limits_are_lifted_for_a_while(disk_factory: DiskFactory, machine: FakeMachine) -> None:
    disk = disk_factory(size="1M", write_bps="20M")
    with disk.full_speed():
        assert machine.arguments("throttle_disk") == [("kfs1", DiskSpec(1 << 20))]
    assert machine.arguments("throttle_disk")[-1] == ("kfs1", DiskSpec(1 << 20, 20 << 20))
    assert disk.spec.write_bps == 20 << 20


def test_limits_come_back_after_a_failure(disk_factory: DiskFactory) -> None:
    disk = disk_factory(size="1M", write_bps="20M")
    with pytest.raises(ZeroDivisionError), disk.full_speed():
        raise ZeroDivisionError
    assert disk.spec.write_bps == 20 << 20


def test_without_limits_there_is_nothing_to_lift(disk_factory: DiskFactory, machine: FakeMachine) -> None:
    with disk_factory().full_speed():
        pass
    assert machine.arguments("throttle_disk") == []


def test_a_dead_machine_is_not_asked_to_limit(disk_factory: DiskFactory, machine: FakeMachine) -> None:
    disk = disk_factory(write_bps="20M")
    with disk.full_speed():
        machine.alive = False
    assert len(machine.arguments("throttle_disk")) == 1


def test_cache_sectors_and_record_are_given_to_the_machine(
    disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="1M", cache="writethrough", sector_size=4096, power_cut=True)
    spec = DiskSpec(1 << 20, cache="writethrough", sector_size=4096, power_cut=True)
    assert machine.arguments("attach_disk") == [(spec,)]
    assert repr(disk) == "<disk /dev/kfs1 1.0 MiB writethrough sectors of 4096>"
    disk.throttle(iops=5)
    assert disk.spec == replace(spec, iops=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cache": "none"}, "cache='none' is none of 'writeback', 'writethrough'"),
        ({"sector_size": 1024}, "sector_size=1024 is none of 512, 4096"),
        ({"sector_size": 4096, "size": 6144}, "disk size 6144 is no positive multiple of 4096 bytes"),
    ],
)
def test_kinds_of_disks_that_there_are_not(
    disk_factory: DiskFactory, machine: FakeMachine, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        disk_factory(**arguments)
    assert machine.calls == []
