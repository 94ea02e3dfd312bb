"""Why is umount slow when many containers stop at once?

Ten containers share one lower layer; each has an overlay of its own on one
XFS. Code is copied into each, then all are stopped. Since Linux 4.14.60
("ovl: Sync upper dirty data when syncing overlayfs") every umount of an
overlay syncs the whole upper file system, the others' data included, and all
wait for the first. These tests state what is true of kernels from 5.10 on.

The disk writes 20 MiB/s, so 10 containers with 4 MiB each cost 2 s.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kernelfs import AssertNoDstate, AssertUmountUnder, Overlay

Containers = Callable[..., list[Overlay]]

COST = 2.0  # seconds to write 40 MiB at 20 MiB/s, on a busy host or an idle one
PATIENCE = 60.0  # for tests that look at the shape, not at a budget
MIB = 1 << 20


def test_without_data_all_umounts_are_fast(
    containers: Containers, assert_umount_under: AssertUmountUnder, assert_no_dstate: AssertNoDstate
) -> None:
    containers(10)
    run = assert_umount_under(COST, parallel=True)
    assert sum(run.written.values()) < 1 * MIB
    assert_no_dstate()


def test_with_data_all_parallel_umounts_wait_for_one_sync(
    containers: Containers, assert_umount_under: AssertUmountUnder
) -> None:
    containers(10, data="4M")
    run = assert_umount_under(PATIENCE, parallel=True)
    assert min(run.seconds) > 0.6 * COST
    assert max(run.seconds) - min(run.seconds) < 0.6 * COST


def test_with_data_the_first_of_serial_umounts_pays_for_all(
    containers: Containers, assert_umount_under: AssertUmountUnder
) -> None:
    containers(10, data="4M")
    first, *others = assert_umount_under(PATIENCE).seconds
    assert first > 0.6 * COST
    assert max(others) < 0.6 * COST


@pytest.mark.parametrize(
    ("count", "data"), [(20, "4M"), (10, "8M")], ids=["twice-the-mounts", "twice-the-data"]
)
def test_twice_as_much_takes_twice_as_long(
    containers: Containers, assert_umount_under: AssertUmountUnder, count: int, data: str
) -> None:
    containers(10, data="4M")
    once = assert_umount_under(PATIENCE, parallel=True)
    containers(count, data=data)
    twice = assert_umount_under(PATIENCE, parallel=True)
    assert max(once.seconds) > 0.6 * COST
    assert max(twice.seconds) > 1.6 * COST
    assert 1.8 < sum(twice.written.values()) / sum(once.written.values()) < 2.2


def test_volatile_overlays_do_not_sync(
    containers: Containers, assert_umount_under: AssertUmountUnder
) -> None:
    containers(10, data="4M", volatile=True)
    run = assert_umount_under(COST, parallel=True)
    assert sum(run.written.values()) < 1 * MIB


def test_the_wait_is_for_writeback(containers: Containers, assert_umount_under: AssertUmountUnder) -> None:
    containers(10, data="4M")
    run = assert_umount_under(PATIENCE, parallel=True)
    assert run.dirty[0] > 30 * MIB
    assert max(run.writeback) > 10 * MIB
    assert run.dirty[-1] + run.writeback[-1] < 1 * MIB
    assert sum(run.written.values()) > 30 * MIB


@pytest.mark.kernel_xfail(">=4.14.60", reason="every umount of an overlay syncs the whole upper file system")
def test_stopping_ten_containers_takes_under_a_second(
    containers: Containers, assert_umount_under: AssertUmountUnder
) -> None:
    containers(10, data="4M")
    assert_umount_under(1.0, parallel=True)
