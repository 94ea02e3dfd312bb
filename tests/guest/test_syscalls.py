"""System calls give the kernel's own answer."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pytest_kernelfs.guest import blocks, syscalls
from pytest_kernelfs.guest.dispatch import GuestError


def test_an_umount_that_fails_carries_errno_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        syscalls.umount(str(tmp_path))
    assert caught.value.errno in (errno.EINVAL, errno.EPERM)


def test_a_mount_that_fails_carries_errno_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path / "missing")) as caught:
        syscalls.mount("none", str(tmp_path / "missing"), "no-such-file-system")
    assert caught.value.errno in (errno.ENOENT, errno.ENODEV, errno.EPERM)


def test_a_file_system_is_synced() -> None:
    syscalls.sync_file_system("/proc")  # has nothing to write, so this takes no time


def test_nothing_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        syscalls.sync_file_system(str(tmp_path / "missing"))


def test_a_sparse_file_takes_no_room(tmp_path: Path) -> None:
    path = tmp_path / "loop" / "file.img"
    blocks.make_sparse(str(path), 1 << 30)
    assert (path.stat().st_size, path.stat().st_blocks) == (1 << 30, 0)


def test_a_disk_that_does_not_come_is_told_with_those_that_are_there() -> None:
    with pytest.raises(GuestError, match="no disk with serial kfs0 and 512 bytes; block devices: "):
        blocks.find_disk("kfs0", 512, timeout=0.0)
