"""File systems of every kind are made on any device, and what makes no sense is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, ProviderUnavailable, UsageError
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory, XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine, ran


@pytest.fixture
def factory(resources: Resources, loop_device_factory: LoopDeviceFactory) -> FilesystemFactory:
    return FilesystemFactory(resources, loop_device_factory)


def with_config(machine: FakeMachine, path: Path, text: str) -> None:
    path.write_text(text)
    old = machine.kernel
    machine.kernel = Kernel(old.version, old.release, old.source, old.checksum, old.image, None, path)


def commands(machine: FakeMachine) -> list[list[str]]:
    return [args[0] for args in machine.arguments("run")]


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("ext4", ["mkfs.ext4", "-q", "-F", "-N", "64", "/dev/loop0"]),
        ("btrfs", ["mkfs.btrfs", "-q", "-f", "-N", "64", "/dev/loop0"]),
        ("f2fs", ["mkfs.f2fs", "-q", "-f", "-N", "64", "/dev/loop0"]),
    ],
)
def test_each_kind_has_its_tool(
    factory: FilesystemFactory, machine: FakeMachine, kind: str, command: list[str]
) -> None:
    made = factory(kind, mkfs=["-N", "64"], options=["noatime"])
    assert commands(machine) == [[f"mkfs.{kind}", "-V"], command]
    assert machine.arguments("mount") == [("/dev/loop0", made.path, kind, "noatime")]
    assert repr(made) == f"<{kind} {made.path} on /dev/loop0>"


def test_the_tool_is_asked_for_its_version_once(factory: FilesystemFactory, machine: FakeMachine) -> None:
    factory("ext4")
    factory("ext4")
    assert [command[1] for command in commands(machine)].count("-V") == 1


def test_an_older_kernel_gets_an_older_ext4() -> None:
    machine = FakeMachine("5.10.262", run=ran(stderr="mke2fs 1.47.0 (5-Feb-2023)\n"))
    resources = Resources(VM(machine))
    made = FilesystemFactory(resources, LoopDeviceFactory(resources))("ext4")
    assert made.mkfs == ["-O", "^orphan_file,^metadata_csum_seed"]


def test_a_tmpfs_needs_no_device(
    factory: FilesystemFactory, machine: FakeMachine, resources: Resources
) -> None:
    tmpfs = factory("tmpfs", size="8M", nr_inodes=100, huge="always", options=["mode=700"])
    options = "size=8388608,nr_inodes=100,huge=always,mode=700"
    assert machine.calls == [("mount", ("tmpfs", tmpfs.path, "tmpfs", options))]
    assert (repr(tmpfs), tmpfs.disk) == (f"<tmpfs {tmpfs.path}>", None)
    resources.close()
    assert machine.arguments("umount") == [(tmpfs.path,)]


def test_what_is_on_a_device_is_mounted_as_it_is(
    factory: FilesystemFactory, machine: FakeMachine, disk_factory: DiskFactory
) -> None:
    made = factory.mount(on=disk_factory(), kind="xfs", options=["ro"])
    assert machine.arguments("mount") == [("/dev/kfs1", made.path, "xfs", "ro")]
    assert machine.arguments("run") == []


def test_a_module_is_loaded_for_a_kind_that_the_kernel_does_not_know_yet(
    factory: FilesystemFactory, machine: FakeMachine
) -> None:
    machine.answers["known"] = False
    factory("btrfs")
    assert commands(machine)[0] == ["modprobe", "btrfs"]


def test_a_kernel_without_the_kind_is_named(factory: FilesystemFactory, machine: FakeMachine) -> None:
    machine.answers.update(known=False, run=ran(1, stderr="modprobe: FATAL: Module f2fs not found"))
    with pytest.raises(
        GuestCommandError, match=r"no f2fs file system .*kernel 6\.1\.176-test has no module f2fs"
    ):
        factory("f2fs")
    assert machine.names == ["known", "run"]


def test_a_tool_that_is_missing_is_named_with_its_package(
    factory: FilesystemFactory, machine: FakeMachine
) -> None:
    machine.answers["run"] = ran(127, stderr="not found")
    with pytest.raises(ProviderUnavailable, match=r"'mkfs\.f2fs' \(for f2fs file systems\).*'f2fs-tools'"):
        factory("f2fs")


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("ntfs", {}, "'ntfs' is no kind of file system on devices; there are xfs, ext4, btrfs, f2fs"),
        ("ext4", {"nr_inodes": 5}, "nr_inodes and huge are for tmpfs, not for ext4"),
        ("xfs", {"huge": "always"}, "are for tmpfs"),
        ("tmpfs", {"mkfs": ["-q"]}, "it takes no on, mkfs or quota"),
        ("tmpfs", {"quota": ["user"]}, "it takes no on, mkfs or quota"),
        ("btrfs", {"quota": ["user"]}, "quota is for xfs and ext4, not for btrfs"),
        ("xfs", {"quota": ["users"]}, "is no list of user, group, project"),
        ("xfs", {"quota": "user"}, "quota='user' is no list of"),
        ("xfs", {"on": "/dev/vda"}, "'/dev/vda' is no block device"),
    ],
)
def test_what_makes_no_sense_is_refused(
    factory: FilesystemFactory, machine: FakeMachine, kind: str, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        factory(kind, **arguments)
    assert machine.calls == []


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({"quota": ["user", "group", "project"]}, "uquota,gquota,pquota"),
        ({"quota": ["user"], "project_quota": True}, "uquota,pquota"),
        ({"quota": ["project"], "project_quota": True}, "pquota"),
    ],
)
def test_quotas_are_switched_on(
    xfs_factory: XfsFactory, machine: FakeMachine, arguments: dict[str, Any], options: str
) -> None:
    xfs_factory(**arguments)
    assert machine.arguments("mount")[0][3] == options


def test_the_quotas_of_ext4_are_part_of_it(factory: FilesystemFactory, machine: FakeMachine) -> None:
    factory("ext4", quota=["project"])
    assert commands(machine)[-1][3:-1] == ["-O", "quota,project", "-E", "quotatype=prjquota"]
    assert machine.arguments("mount")[0][3] == "prjquota"


def test_a_kernel_without_quotas_is_named(
    xfs_factory: XfsFactory, machine: FakeMachine, tmp_path: Path
) -> None:
    with_config(machine, tmp_path / "config", "CONFIG_XFS_FS=m\n")
    with pytest.raises(GuestCommandError, match=r"kernel 6\.1\.176-test was built without CONFIG_XFS_QUOTA"):
        xfs_factory(quota=["user"])
    with_config(machine, tmp_path / "config2", "CONFIG_XFS_QUOTA=y\n")
    xfs_factory(quota=["user"])


def test_a_kernel_that_may_lack_quotas_is_suspected(xfs_factory: XfsFactory, machine: FakeMachine) -> None:
    machine.answers["mount"] = GuestCommandError("mount: Invalid argument")
    with pytest.raises(
        GuestCommandError, match=r"Invalid argument; was kernel .* built with CONFIG_XFS_QUOTA\?"
    ):
        xfs_factory(quota=["user"])


def test_options_and_flags_may_come_from_an_iterator(
    factory: FilesystemFactory, machine: FakeMachine
) -> None:
    factory("ext4", mkfs=iter(["-N", "64"]), options=iter(["noatime"]))  # type: ignore[call-overload]
    assert commands(machine)[1] == ["mkfs.ext4", "-q", "-F", "-N", "64", "/dev/loop0"]
    assert machine.arguments("mount")[0][3] == "noatime"
