"""A machine that was prepared once, and forks of it that go their own ways."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, AssertUmountUnder, Checkpoint, OverlayFactory, Preparer
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.stack import Resources

MIB = 1 << 20


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    """A disk with an XFS, overlays with dirty pages, a process, a file, a sysctl."""
    machine = prepare()
    xfs = machine.xfs_factory(on=machine.disk_factory(size="1G", write_bps="40M"))
    overlays = [machine.overlay_factory(on=xfs) for _ in range(2)]
    # However long it takes until a test goes on: what is dirty stays so.
    machine.writeback.hold()
    overlays[0].write("data", "8M")
    machine.sysctl["vm.swappiness"] = 7
    machine.vm.run("echo kept > /root/file; sleep 100000 >/dev/null 2>&1 &", check=True)
    return machine.checkpoint(xfs=xfs, overlays=overlays, word="said")


@pytest.mark.parametrize("number", range(3))
def test_each_fork_finds_all_and_ruins_all(vm: VM, number: int) -> None:
    xfs, overlays = vm.kept["xfs"], vm.kept["overlays"]
    assert vm.kept["word"] == "said"
    assert vm.get("/root/file") == b"kept\n"
    assert vm.run("sysctl -n vm.swappiness").stdout.strip() == "7"
    assert vm.run(["pkill", "sleep"]).succeeded
    assert len(vm.get(f"{overlays[0].path}/data")) == 8 * MIB
    assert vm.run(f"ls {xfs.path}/ruined*").failed
    xfs.write(f"ruined-{number}", "2M")
    vm.run(f"rm /root/file {overlays[0].path}/data", check=True)


def test_mounts_that_were_kept_are_the_tests_own(vm: VM, assert_umount_under: AssertUmountUnder) -> None:
    run = assert_umount_under(60.0, parallel=True)
    assert run.paths == tuple(overlay.path for overlay in vm.kept["overlays"])
    assert sum(run.written.values()) > 6 * MIB


def test_what_was_kept_is_checked_when_the_test_unmounts_it(vm: VM, kernelfs_resources: Resources) -> None:
    xfs = vm.kept["xfs"]
    for mount in (*vm.kept["overlays"], xfs):
        mount.umount()
    vm.run(f"printf damage | dd of={xfs.device} bs=1 seek=512 conv=notrunc,fsync", check=True)
    kernelfs_resources.close()
    assert len(kernelfs_resources.findings) == 1
    assert "xfs_repair -n -P says:" in kernelfs_resources.findings.pop()


def test_a_fork_can_have_more(vm: VM, overlay_factory: OverlayFactory) -> None:
    overlay = overlay_factory(on=vm.kept["xfs"])
    assert overlay.path not in [kept.path for kept in vm.kept["overlays"]]
    overlay.write("data", "1M")


def test_disks_keep_their_speed_and_can_change_it(vm: VM) -> None:
    disk = vm.kept["xfs"].disk
    assert disk.spec.write_bps == 40 * MIB
    disk.throttle(write_bps="1M")
    disk.throttle()


def test_forks_differ(vm: VM) -> None:
    assert vm.dmesg()[0].text.startswith("kernelfs: this is ")


def test_a_fork_cannot_be_saved(vm: VM) -> None:
    with pytest.raises(UsageError, match="only a machine that the fixture 'prepare' made"):
        vm.checkpoint()
