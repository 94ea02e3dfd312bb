"""The umount assertion: it fails for slow and for failing umounts, and for nothing else."""

from __future__ import annotations

import re

import pytest

from pytest_kernelfs import VM, AssertUmountUnder, DiskFactory, OverlayFactory, Xfs, XfsFactory

MIB = 1 << 20


@pytest.fixture
def slow_xfs(disk_factory: DiskFactory, xfs_factory: XfsFactory) -> Xfs:
    return xfs_factory(on=disk_factory(size="512M", write_bps="10M"))


def test_a_slow_disk_is_caught_in_parallel(
    slow_xfs: Xfs, overlay_factory: OverlayFactory, assert_umount_under: AssertUmountUnder
) -> None:
    overlays = [overlay_factory(on=slow_xfs) for _ in range(3)]
    for overlay in overlays:
        overlay.write("data", "5M")
    with pytest.raises(AssertionError) as caught:
        assert_umount_under(0.3, parallel=True)
    text = str(caught.value)
    assert re.match(r"3 of 3 umounts took longer than 0.3 s, at most [12]\.\d{3} s \(unmounted at once", text)
    assert all(overlay.path in text for overlay in overlays)
    assert re.search(r"written to vd[a-z] meanwhile: 1\d\.\d MiB", text)
    assert re.search(r"Dirty: \d+\.\d MiB before, .* after", text)
    assert "Writeback: " in text


def test_a_slow_disk_is_caught_in_the_first_of_a_series(
    slow_xfs: Xfs, overlay_factory: OverlayFactory, assert_umount_under: AssertUmountUnder
) -> None:
    overlays = [overlay_factory(on=slow_xfs) for _ in range(3)]
    for overlay in overlays:
        overlay.write("data", "5M")
    with pytest.raises(AssertionError, match=r"1 of 3 umounts took longer than 0.3 s.*one after another"):
        assert_umount_under(0.3, *overlays)


def test_a_clean_mount_passes(
    overlay_factory: OverlayFactory, assert_umount_under: AssertUmountUnder
) -> None:
    overlays = [overlay_factory() for _ in range(3)]
    run = assert_umount_under(1.0, parallel=True)
    assert run.paths == tuple(overlay.path for overlay in overlays)
    assert 0 < run.measurement.max < 1.0


def test_a_busy_mount_is_a_failed_umount(vm: VM, xfs: Xfs) -> None:
    vm.run(f"cd {xfs.path}; sleep 1000 >/dev/null 2>&1 &")
    with pytest.raises(AssertionError, match="1 of 1 umounts failed") as caught:
        xfs.assert_umount_under(1.0)
    assert "busy" in str(caught.value)
    vm.run(["pkill", "sleep"], check=True)


def test_the_file_system_is_meant_when_there_is_no_overlay(
    vm: VM, xfs: Xfs, assert_umount_under: AssertUmountUnder
) -> None:
    assert_umount_under(5.0)
    assert xfs.path not in vm.run("cat /proc/mounts").stdout
