"""Quotas are enforced at their limits, and told in bytes."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Filesystem, FilesystemFactory, QuotaUsage
from pytest_kernelfs.errors import GuestCommandError

MIB = 1 << 20
AS_USER = "setpriv --reuid 1000 --regid 100 --clear-groups"


@pytest.mark.parametrize("kind", ["xfs", "ext4"])
def test_limits_are_hit_and_usage_is_told(vm: VM, filesystem_factory: FilesystemFactory, kind: str) -> None:
    made = filesystem_factory(kind, quota=["user", "group", "project"])
    assert isinstance(made, Filesystem)
    project = made.quota.project(42, "images").limit(blocks_hard="4M", inodes_hard=5)
    user = made.quota.user(1000).limit(blocks_hard="6M", inodes_soft=3)
    group = made.quota.group(100).limit(blocks_hard="2G")
    vm.run(f"chmod 777 {made.path} {made.path}/images", check=True)

    # XFS calls it "no space" when a project is at its limit, for whoever is the writer.
    full = "No space left on device" if kind == "xfs" else "Disk quota exceeded"
    fill = f"{AS_USER} dd if=/dev/zero bs=64K count=128 of={made.path}"
    assert full in vm.run(f"{fill}/images/file").stderr
    used = project.usage()
    assert 4 * MIB - 65536 <= used.bytes <= 4 * MIB
    assert (used.inodes, used.blocks_hard, used.inodes_hard) == (2, 4 * MIB, 5)
    assert full in vm.run(f"cd {made.path}/images && rm file && {AS_USER} touch 1 2 3 4 5").stderr
    assert project.usage().inodes == 5

    assert "Disk quota exceeded" in vm.run(f"{fill}/file").stderr
    assert 6 * MIB - 65536 <= user.usage().bytes <= 6 * MIB
    assert made.quota.report("user")[1000] == user.usage()
    assert group.usage().blocks_hard == 2 << 30
    assert set(made.quota.report("project")) >= {0, 42}

    project.limit(inodes_hard=0)
    user.limit(blocks_hard=0)
    assert vm.run(f"{AS_USER} touch {made.path}/images/6").succeeded
    made.umount()
    made.mount()
    assert (project.usage().inodes_hard, project.usage().blocks_hard) == (0, 4 * MIB)
    assert made.quota.user(7).usage() == QuotaUsage(7, 0, 0, 0, 0, 0, 0)


@pytest.mark.usefixtures("newest_only")
def test_without_quotas_the_way_to_them_is_told(xfs: Filesystem) -> None:
    with pytest.raises(GuestCommandError, match=r"user quotas on /dev/loop\d+: .*made with quota=\['user'\]"):
        xfs.quota.user(1000).limit(blocks_hard="1M")
    with pytest.raises(GuestCommandError, match="reading of project quotas"):
        xfs.quota.report("project")
