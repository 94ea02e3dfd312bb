"""ext4 and btrfs are made with the features that the kernel under test can mount."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_kernelfs.kernels import KernelVersion
from pytest_kernelfs.resources import mkfs, mkfs_btrfs, mkfs_ext4
from pytest_kernelfs.tools import find

KERNELS = ["4.4", "5.10", "6.1", "6.12", "7.2"]


@pytest.mark.parametrize(
    ("kernel", "tool", "wanted", "expected"),
    [
        ("5.10.262", (1, 47), [], ["-O", "^orphan_file,^metadata_csum_seed"]),
        ("5.10.262", (1, 46), [], []),
        ("5.15", (1, 47), [], []),
        ("7.2.12", (1, 48), [], []),
        ("5.10", (1, 47), ["-O", "orphan_file"], ["-O", "^metadata_csum_seed"]),
        ("5.10", (1, 47), ["-O", "orphan_file,^metadata_csum_seed"], []),
    ],
)
def test_ext4(kernel: str, tool: tuple[int, int], wanted: list[str], expected: list[str]) -> None:
    assert mkfs_ext4.mkfs_flags(tool, KernelVersion.parse(kernel), wanted) == expected


@pytest.mark.parametrize(
    ("kernel", "tool", "wanted", "expected"),
    [
        ("5.10.262", (6, 2), [], []),
        ("5.10.262", (6, 19), [], ["-O", "^block-group-tree"]),
        ("6.1.176", (6, 19), [], []),
        ("5.10.262", (6, 19), ["-O", "block-group-tree"], []),
        ("4.8", (5, 15), [], ["-R", "^free-space-tree"]),
        ("3.18", (5, 15), [], ["-O", "^no-holes", "-R", "^free-space-tree"]),
        ("3.18", (5, 14), [], []),
    ],
)
def test_btrfs(kernel: str, tool: tuple[int, int], wanted: list[str], expected: list[str]) -> None:
    assert mkfs_btrfs.mkfs_flags(tool, KernelVersion.parse(kernel), wanted) == expected


@pytest.mark.parametrize(
    ("kind", "printed", "version"),
    [
        ("xfs", "mkfs.xfs version 6.1.0\n", (6, 1)),
        ("ext4", "mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n", (1, 47)),
        ("btrfs", "mkfs.btrfs, part of btrfs-progs v6.2\n", (6, 2)),
        ("f2fs", "mkfs.f2fs 1.15.0 (2022-05-13)\n", (1, 15)),
        ("ext4", "busybox\n", (0, 0)),
    ],
)
def test_the_version_of_a_tool_is_read(kind: str, printed: str, version: tuple[int, int]) -> None:
    assert mkfs.parse_version(mkfs.KINDS[kind], printed) == version


@pytest.mark.parametrize(
    ("types", "flags"),
    [
        ([], []),
        (["user"], ["-O", "quota", "-E", "quotatype=usrquota"]),
        (["project", "group"], ["-O", "quota,project", "-E", "quotatype=prjquota:grpquota"]),
    ],
)
def test_the_quota_files_of_ext4_are_made(types: list[str], flags: list[str]) -> None:
    assert mkfs_ext4.quota_flags(types) == flags


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_the_hosts_own_tools_take_the_flags(kind: str, kernel: str, tmp_path: Path) -> None:
    how = mkfs.KINDS[kind]
    tool = find(how.command[0])
    if tool is None or shutil.which("truncate") is None:
        pytest.skip(f"the host has no {how.command[0]}")
    told = subprocess.run([tool, "-V"], capture_output=True, text=True, check=True)
    assert how.flags is not None
    flags = how.flags(mkfs.parse_version(how, told.stdout + told.stderr), KernelVersion.parse(kernel), [])
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    done = subprocess.run(
        [tool, *how.command[1:], *flags, image], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
