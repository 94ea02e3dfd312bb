"""XFS is made for the kernel under test, on any block device."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import GuestCommandError, ProviderUnavailable, UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran


def made(machine: FakeMachine) -> list[str]:
    """The command that made the file system."""
    command: list[str] = machine.arguments("run")[-1][0]
    return command


def test_by_default_it_is_made_on_a_loop_device(xfs_factory: XfsFactory, machine: FakeMachine) -> None:
    xfs = xfs_factory()
    assert xfs.device == "/dev/loop0"
    assert machine.arguments("make_sparse")[0][1] == 512 << 20
    assert machine.arguments("mount") == [("/dev/loop0", xfs.path, "xfs", "")]


def test_flags_are_those_of_kernel_and_mkfs_then_the_tests_own(
    xfs_factory: XfsFactory, machine: FakeMachine
) -> None:
    xfs_factory(mkfs=["-s", "size=4096"])
    flags = ["-m", "rmapbt=0", "-i", "nrext64=0", "-n", "ftype=1", "-s", "size=4096"]
    assert made(machine) == ["mkfs.xfs", "-q", "-f", *flags, "/dev/loop0"]


def test_an_older_kernel_gets_older_features() -> None:
    machine = FakeMachine("5.10.262")
    resources = Resources(VM(machine))
    XfsFactory(resources, LoopDeviceFactory(resources))()
    assert "rmapbt=0,inobtcount=0,bigtime=0" in made(machine)


@pytest.mark.parametrize(
    ("options", "quota", "text"),
    [
        ([], False, ""),
        (["noatime", "logbsize=256k"], False, "noatime,logbsize=256k"),
        ([], True, "pquota"),
        (["noatime"], True, "noatime,pquota"),
    ],
)
def test_options_go_to_the_kernel(
    xfs_factory: XfsFactory, machine: FakeMachine, options: list[str], quota: bool, text: str
) -> None:
    xfs_factory(options=options, project_quota=quota)
    assert machine.arguments("mount")[0][3] == text


def test_making_it_does_not_wait_for_a_slow_disk(
    xfs_factory: XfsFactory, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="1G", write_bps="1M")
    xfs = xfs_factory(on=disk)
    work = [name for name in machine.names if name in ("throttle_disk", "run", "mount")]
    assert work == ["run", "throttle_disk", "run", "mount", "throttle_disk"]
    assert machine.arguments("throttle_disk")[-1][1] == DiskSpec(1 << 30, 1 << 20)
    assert (xfs.disk, xfs.device) == (disk, "/dev/kfs1")


def test_size_and_device_together_are_refused(
    xfs_factory: XfsFactory, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory()
    machine.calls.clear()
    with pytest.raises(UsageError, match="the size comes with the device"):
        xfs_factory(on=disk, size="1G")
    assert machine.calls == []


def test_a_guest_without_mkfs_says_which_package_the_host_lacks(
    xfs_factory: XfsFactory, machine: FakeMachine
) -> None:
    machine.answers["run"] = ran(127, stderr="not found")
    with pytest.raises(ProviderUnavailable, match=r"'mkfs\.xfs' \(for the xfs fixtures\).*'xfsprogs'"):
        xfs_factory()


def test_what_mkfs_complains_about_is_told(xfs_factory: XfsFactory, machine: FakeMachine) -> None:
    def run(command: list[str], *_: object) -> dict[str, object]:
        return (
            ran(stdout="mkfs.xfs version 6.1.0") if "-V" in command else ran(1, stderr="agsize too small\n")
        )

    machine.answers["run"] = run
    with pytest.raises(GuestCommandError, match="agsize too small"):
        xfs_factory(size="1M")
    assert "mount" not in machine.names


def test_it_is_unmounted_before_its_device_goes(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    xfs = xfs_factory()
    machine.calls.clear()
    resources.close()
    assert machine.names == ["umount", "detach_loop", "remove"]
    assert machine.arguments("umount") == [(xfs.path,)]


def test_a_mount_that_fails_is_not_unmounted(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["mount"] = GuestCommandError("mount: Invalid argument")
    with pytest.raises(GuestCommandError):
        xfs_factory()
    resources.close()
    assert "umount" not in machine.names


def test_an_xfs_says_what_it_is(xfs_factory: XfsFactory) -> None:
    xfs = xfs_factory()
    assert repr(xfs) == f"<xfs {xfs.path} on /dev/loop0>"


def test_it_is_mounted_again_with_the_options_it_had(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    xfs = xfs_factory(options=["noatime"])
    xfs.umount()
    xfs.mount()
    assert resources.default_mounts() == [xfs]
    xfs.umount()
    xfs.mount(["ro"])
    assert [args[3] for args in machine.arguments("mount")] == ["noatime", "noatime", "ro"]
    machine.calls.clear()
    resources.close()
    assert machine.names.count("umount") == 1


def test_options_are_changed(xfs_factory: XfsFactory, machine: FakeMachine) -> None:
    xfs = xfs_factory()
    xfs.remount(["ro", "noatime"])
    assert machine.arguments("remount") == [(xfs.path, "ro,noatime")]


def test_what_is_left_frozen_is_thawed_first_of_all(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    xfs = xfs_factory()
    xfs.freeze()
    resources.on_teardown("cgroup", lambda: machine.calls.append(("kill", ())))
    machine.calls.clear()
    resources.close()
    assert machine.names[:3] == ["thaw_wherever", "kill", "umount"]
    assert machine.arguments("thaw_wherever") == [(xfs.path, "/dev/loop0", "xfs")]


def test_what_was_thawed_is_not_thawed_again(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["thaw"] = True
    xfs = xfs_factory()
    with xfs.frozen():
        assert machine.names[-1] == "freeze"
    assert machine.names[-1] == "thaw_wherever"
    xfs.freeze()
    assert xfs.thaw() is True
    machine.calls.clear()
    resources.close()
    assert "thaw_wherever" not in machine.names


def test_it_is_shut_down(xfs_factory: XfsFactory, machine: FakeMachine) -> None:
    xfs = xfs_factory()
    xfs.shutdown(write="log")
    assert machine.arguments("shutdown") == [(xfs.path, "log")]
    with pytest.raises(UsageError, match="write='metadata' is none of all, log, nothing"):
        xfs.shutdown(write="metadata")
