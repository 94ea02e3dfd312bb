"""Dirty data: held, seen on its way, forced out."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Disk, DiskFactory, Sysctl, Writeback, Xfs, XfsFactory
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import meminfo
from tests.vm.inner import until
from tests.vm.pace import live

MIB = 1 << 20


@pytest.fixture
def disk(disk_factory: DiskFactory) -> Disk:
    return disk_factory(size="1G")


@pytest.fixture
def on_disk(disk: Disk, xfs_factory: XfsFactory) -> Xfs:
    return xfs_factory(on=disk)


def test_held_data_stays_dirty_until_it_is_forced(
    vm: VM, disk: Disk, on_disk: Xfs, writeback: Writeback
) -> None:
    limit = writeback.hold()
    assert limit > 200 * MIB
    disk.throttle(write_bps="1M")
    name = disk.path.rpartition("/")[2]
    with writeback.watch() as watch:
        with watch.phase("write"):
            on_disk.write("file", "40M")
        with watch.phase("hold"):
            vm.call(live, 0.3)
            with pytest.raises(AssertionError, match=r"are still dirty .* after 1 s"):
                writeback.settle(timeout=1.0)
        with watch.phase("sync"):
            vm.run("sync >/dev/null 2>&1 &")
            until(lambda: vm.guest(meminfo.read, "Writeback")["Writeback"] > MIB, "writeback")
            vm.call(live, 0.5)
            disk.throttle()
            writeback.force()
            writeback.settle()
        with watch.phase("idle"):
            pass
    assert watch["write"].dirty.max >= 34 * MIB
    assert watch["write"].written.get(name, 0) < 8 * MIB
    assert watch["hold"].dirty.samples[-1] >= 34 * MIB
    assert watch["hold"].written.get(name, 0) < 8 * MIB
    assert len(watch["hold"].dirty.samples) > 3
    assert watch["sync"].written[name] >= 30 * MIB
    assert watch["sync"].writeback.max > MIB
    assert watch["sync"].seconds > 0.5
    # But for what a file system may note for itself.
    assert watch["idle"].written.get(name, 0) < MIB
    assert watch["idle"].dirty.max < MIB
    assert writeback.dirty() < MIB


@pytest.mark.usefixtures("oldest_or_newest")
def test_what_is_not_held_is_written_by_itself(
    disk: Disk, on_disk: Xfs, writeback: Writeback, sysctl: Sysctl
) -> None:
    with pytest.raises(UsageError, match=r"16\.0 GiB cannot be held dirty with .* of memory available"):
        writeback.hold("16G")
    sysctl.update({"vm.dirty_expire_centisecs": 10, "vm.dirty_writeback_centisecs": 10})
    with writeback.watch() as watch, watch.phase("all"):
        on_disk.write("file", "8M")
        assert writeback.settle(at_most="1M", timeout=120.0) < 120.0
    assert watch["all"].written[disk.path.rpartition("/")[2]] >= 7 * MIB
