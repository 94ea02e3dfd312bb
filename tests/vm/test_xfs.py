"""XFS on every kernel, made by one mkfs."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DiskFactory, Xfs, XfsFactory
from pytest_kernelfs.errors import GuestCommandError, UsageError

MIB = 1 << 20


def test_it_mounts_and_holds_data(vm: VM, xfs: Xfs) -> None:
    xfs.write("folder/file", "3M")
    xfs.sync()
    assert int(vm.run(f"stat -c %s {xfs.path}/folder/file", check=True).stdout) == 3 * MIB
    assert vm.run(f"stat -f -c %T {xfs.path}", check=True).stdout.strip() == "xfs"


def test_its_features_are_no_news_to_the_kernel(
    vm: VM, disk_factory: DiskFactory, xfs_factory: XfsFactory
) -> None:
    xfs = xfs_factory(on=disk_factory(size="512M"))
    xfs.write("file", "1M")
    xfs.umount()
    said = vm.dmesg()
    assert not [record for record in said if record.level <= 3 or "EXPERIMENTAL" in record.text]


def test_written_data_can_not_be_compressed(vm: VM, xfs: Xfs) -> None:
    xfs.write("file", "1M")
    assert len(set(vm.get(f"{xfs.path}/file"))) == 256


def test_project_quota_on_request(vm: VM, xfs_factory: XfsFactory, xfs: Xfs) -> None:
    with_quota = xfs_factory(project_quota=True)
    mounts = vm.run("cat /proc/mounts", check=True).stdout.splitlines()
    assert [("prjquota" in line) for line in mounts if with_quota.path in line] == [True]
    assert [("prjquota" in line) for line in mounts if f"{xfs.path} " in line] == [False]


def test_options_of_mount_and_of_xfs(vm: VM, xfs_factory: XfsFactory) -> None:
    xfs = xfs_factory(options=["noatime", "nosuid", "inode32"])
    line = next(line for line in vm.run("cat /proc/mounts").stdout.splitlines() if xfs.path in line)
    assert {"noatime", "nosuid", "inode32"} <= set(line.split()[3].split(","))


def test_an_option_the_kernel_refuses_carries_its_reason(xfs_factory: XfsFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"Invalid argument.*the kernel said: .*nonsense"):
        xfs_factory(options=["nonsense"])


def test_flags_of_the_tests_own_win(vm: VM, xfs_factory: XfsFactory, disk_factory: DiskFactory) -> None:
    xfs = xfs_factory(on=disk_factory(size="512M"), mkfs=["-b", "size=1024", "-m", "reflink=0"])
    info = vm.run(["xfs_info", xfs.path], check=True).stdout
    assert "bsize=1024" in info
    assert "reflink=0" in info


def test_what_mkfs_refuses_is_short(xfs_factory: XfsFactory) -> None:
    with pytest.raises(GuestCommandError, match=r"mkfs.xfs .* failed: ") as caught:
        xfs_factory(mkfs=["-b", "size=7"])
    assert len(str(caught.value).splitlines()) < 6


def test_a_size_beside_a_device_is_a_mistake(xfs_factory: XfsFactory, disk_factory: DiskFactory) -> None:
    with pytest.raises(UsageError, match="the size comes with the device"):
        xfs_factory(on=disk_factory(size="512M"), size="1G")
