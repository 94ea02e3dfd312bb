"""The umount assertion: it fails for slow, failing and hanging umounts, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from pytest_kernelfs import (
    VM,
    AssertUmountUnder,
    DiskFactory,
    DmFactory,
    LoopDeviceFactory,
    Overlay,
    OverlayFactory,
    Writeback,
    Xfs,
    XfsFactory,
)
from pytest_kernelfs.errors import GuestTimeout
from tests.vm.inner import until

Dirty = Callable[[], list[Overlay]]
# How often what a host may spoil is tried: by letting the machine stand still while something is measured.
TRIES = 3


@pytest.fixture
def dirty(
    disk_factory: DiskFactory, xfs_factory: XfsFactory, overlay_factory: OverlayFactory, writeback: Writeback
) -> Dirty:
    """Gives three overlays on one slow disk, with data that stays dirty until one of them is unmounted."""
    xfs = xfs_factory(on=disk_factory(size="512M", write_bps="10M"))
    writeback.hold()

    def make() -> list[Overlay]:
        overlays = [overlay_factory(on=xfs) for _ in range(3)]
        for overlay in overlays:
            overlay.write("data", "5M")
        return overlays

    return make


def test_a_slow_disk_is_caught_in_parallel(dirty: Dirty, assert_umount_under: AssertUmountUnder) -> None:
    for _ in range(TRIES):
        overlays = dirty()
        with pytest.raises(AssertionError) as caught:
            assert_umount_under(0.3, *overlays, parallel=True)
        text = str(caught.value)
        if text.startswith("3 of 3 umounts") and " looks, called by " in text:
            break
    assert re.match(r"3 of 3 umounts took longer than 0.3 s, at most \d+\.\d{3} s \(unmounted at once", text)
    assert all(overlay.path in text for overlay in overlays)
    assert re.search(r"written to vd[a-z] meanwhile: 1\d\.\d MiB", text)
    assert re.search(r"Dirty: \d+\.\d MiB before, .* after", text)
    assert "Writeback: " in text
    assert re.search(
        r"the umount of /mnt/overlay-\d+ waited mostly in \w+ \(\d+ of \d+ looks, called by ", text
    )
    assert "sync_filesystem" in text
    assert re.search(r"about as much was written as was dirty .* the umount waited for the disk", text)


def test_a_slow_disk_is_caught_in_the_first_of_a_series(
    dirty: Dirty, assert_umount_under: AssertUmountUnder
) -> None:
    for _ in range(TRIES):
        first, *others = dirty()
        with pytest.raises(AssertionError, match="one after another") as caught:
            assert_umount_under(0.7, first, *others)
        lines = str(caught.value).splitlines()
        assert re.fullmatch(rf"  {first.path} +\d+\.\d{{3}} s  over budget", lines[1]), lines
        if "over budget" not in "".join(lines[2:4]):
            break
    assert lines[0].startswith("1 of 3 umounts took longer than 0.7 s"), lines


def test_a_clean_mount_passes(
    overlay_factory: OverlayFactory, assert_umount_under: AssertUmountUnder
) -> None:
    overlays = [overlay_factory() for _ in range(3)]
    run = assert_umount_under(30.0, parallel=True)
    assert run.paths == tuple(overlay.path for overlay in overlays)
    assert 0 < run.measurement.max < 30.0


def test_a_busy_mount_is_a_failed_umount(vm: VM, xfs: Xfs) -> None:
    vm.run(f"cd {xfs.path}; sleep 1000 >/dev/null 2>&1 &")
    vm.run("until pgrep -x sleep; do sleep 0.01; done", check=True)
    with pytest.raises(AssertionError, match="1 of 1 umounts failed") as caught:
        xfs.assert_umount_under(1.0)
    assert re.search(r"busy: held by \d+ \(sleep\)", str(caught.value))
    vm.run(["pkill", "sleep"], check=True)


def test_what_is_mounted_below_keeps_a_mount_busy(
    vm: VM, xfs: Xfs, loop_device_factory: LoopDeviceFactory
) -> None:
    loop = loop_device_factory(on=xfs)
    vm.run(f"mkdir {xfs.path}/below && mount -t tmpfs none {xfs.path}/below", check=True)
    with pytest.raises(AssertionError) as caught:
        xfs.assert_umount_under(1.0)
    assert f"held by the tmpfs mounted on {xfs.path}/below, {loop.path} on {loop.backing}" in str(
        caught.value
    )
    vm.run(["umount", f"{xfs.path}/below"], check=True)


def test_a_umount_that_hangs_is_given_up_and_told(
    vm: VM,
    disk_factory: DiskFactory,
    xfs_factory: XfsFactory,
    dm_factory: DmFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pytest_kernelfs.probes.umount._SHORTEST_S", 3.0)
    device = dm_factory.linear(on=disk_factory(size="512M"))
    xfs = xfs_factory(on=device)
    xfs.write("data", "1M")
    device.suspend(flush=False, freeze=False)
    with pytest.raises(GuestTimeout) as caught:
        xfs.assert_umount_under(0.5)
    told = rf"^1 mount had not been unmounted after 5 s \(budget 0.5 s, kernel .*\): {xfs.path}\n.*vm.sysrq"
    assert re.match(told, str(caught.value)), str(caught.value)
    until(lambda: "cleanup_mnt" in vm.sysrq("w"), "the umount")


def test_the_file_system_is_meant_when_there_is_no_overlay(
    vm: VM, xfs: Xfs, assert_umount_under: AssertUmountUnder
) -> None:
    assert_umount_under(60.0)
    assert xfs.path not in vm.run("cat /proc/mounts").stdout
