"""What keeps removed containers, and does it make reading statistics slow?

On the nodes that stalled, a collector of statistics was always running just
before: it read memory.stat, which took 150 ms and more inside the kernel, and
the packets of that processor waited. It was slow because the kernel still
kept thousands of memory cgroups of containers that were long removed: pages,
dentries and inodes in the cache were still charged to them. Dropping the
caches let them go, and reads and network were quick again.

Kernels from 4.19 on read memory.stat quickly in spite of them. That is what
is demanded here, by comparing reads within one run, and what keeps them is
told apart.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kernelfs import (
    AssertNoDyingCgroups,
    AssertReadUnder,
    CgroupFactory,
    DiskFactory,
    DropCaches,
    DyingCgroups,
    Kernel,
    Xfs,
)

RemovedContainers = Callable[[int], DyingCgroups]

CONTAINERS = 50
KEPT = "<6.13"  # kernels that were seen to keep a removed cgroup for what it has in the page cache
STATISTICS = "/sys/fs/cgroup/memory.stat"
PATIENCE = 60.0  # against a hang alone: how quick reads are is compared within a run


@pytest.fixture
def removed_containers(cgroup_factory: CgroupFactory, xfs: Xfs) -> RemovedContainers:
    """``removed_containers(50)``: so many ran and were removed; a file that each wrote is still cached."""

    def remove(count: int) -> DyingCgroups:
        return cgroup_factory(controllers=["memory"]).make_dying(count, kind="page cache", on=xfs)

    return remove


def test_after_dropping_caches_removed_containers_are_gone(
    removed_containers: RemovedContainers,
    drop_caches: DropCaches,
    assert_no_dying_cgroups: AssertNoDyingCgroups,
    kernel: Kernel,
) -> None:
    """The workaround. 7.2 needs none: what a removed cgroup has in the cache goes to its parent there."""
    assert_no_dying_cgroups()
    removed = removed_containers(CONTAINERS)
    if kernel.version.matches(KEPT):
        assert removed.dying == CONTAINERS
    drop_caches()
    assert_no_dying_cgroups()


@pytest.mark.kernel_xfail(KEPT, reason="the page cache of a removed cgroup keeps it")
def test_removed_containers_are_gone_by_themselves(
    removed_containers: RemovedContainers, assert_no_dying_cgroups: AssertNoDyingCgroups
) -> None:
    """What one would like to be true. Where it is not, the failure tells what keeps them."""
    removed_containers(CONTAINERS)
    assert_no_dying_cgroups()


def test_statistics_are_read_as_quickly_with_removed_containers(
    removed_containers: RemovedContainers,
    drop_caches: DropCaches,
    assert_no_dying_cgroups: AssertNoDyingCgroups,
    assert_read_under: AssertReadUnder,
) -> None:
    """With removed containers, without them again: the same reads take about as long."""
    removed_containers(CONTAINERS)
    during = assert_read_under(STATISTICS, PATIENCE)
    drop_caches()
    assert_no_dying_cgroups()  # which takes the kernel a moment
    after = assert_read_under(STATISTICS, PATIENCE)
    assert during.measurement.median < 10 * after.measurement.median


def test_a_slow_read_is_told_with_how_many_containers_are_kept(
    cgroup_factory: CgroupFactory, disk_factory: DiskFactory, assert_read_under: AssertReadUnder
) -> None:
    """A planted slow read, of a disk that gives 1 MiB/s: the failure has the times, and a suspicion."""
    cgroup_factory(controllers=["memory"]).make_dying(5, kind="zombie")
    disk = disk_factory(size="1M", read_bps="1M")
    with pytest.raises(AssertionError, match=r"reads of .* took longer than") as caught:
        assert_read_under(disk.path, 0.25, repeat=2)
    assert "5 cgroups are dying" in str(caught.value)


def test_a_process_that_nobody_waits_for_keeps_its_container(
    cgroup_factory: CgroupFactory, drop_caches: DropCaches, assert_no_dying_cgroups: AssertNoDyingCgroups
) -> None:
    """There the workaround does not help, on any kernel; to end the parent does."""
    removed = cgroup_factory(controllers=["memory"]).make_dying(5, kind="zombie")
    drop_caches()
    with pytest.raises(AssertionError, match="5 processes of removed cgroups have ended"):
        assert_no_dying_cgroups(within=0.5)
    removed.release()
    assert_no_dying_cgroups()
