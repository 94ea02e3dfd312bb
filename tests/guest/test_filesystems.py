"""Freezing, thawing and shutting down, as far as a folder that is no file system lets see."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import filesystems, mounts, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

Calls = list[tuple[Any, ...]]


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths where something is mounted."""
    paths: set[str] = set()
    monkeypatch.setattr(os.path, "ismount", lambda path: path in paths)
    return paths


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, mounted: set[str]) -> Calls:
    """What is asked of the kernel, which agrees to everything."""
    calls: Calls = []

    def mount(source: str, target: str, fstype: str) -> None:
        calls.append(("mount", source, target, fstype))
        mounted.add(target)

    def umount(target: str) -> None:
        calls.append(("umount", target))
        mounted.discard(target)

    monkeypatch.setattr(syscalls, "mount", mount)
    monkeypatch.setattr(mounts, "umount", umount)
    monkeypatch.setattr(
        filesystems, "_ioctl", lambda path, request, argument: calls.append((hex(request), path))
    )
    return calls


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def ioctl(path: str, request: int, argument: bytes) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr(filesystems, "_ioctl", ioctl)


def test_what_the_kernel_can_mount_is_known() -> None:
    assert filesystems.known("proc")
    assert not filesystems.known("no-such-file-system")


@pytest.mark.parametrize("ask", [filesystems.freeze, filesystems.thaw])
def test_a_folder_that_nothing_is_mounted_at_is_left_alone(ask: Any, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=f"nothing is mounted at {tmp_path}"):
        ask(str(tmp_path))


@pytest.mark.parametrize(
    ("code", "text"), [(errno.EBUSY, "it is frozen already"), (errno.EOPNOTSUPP, "it cannot be frozen")]
)
def test_why_it_is_not_frozen(
    monkeypatch: pytest.MonkeyPatch, mounted: set[str], code: int, text: str
) -> None:
    mounted.add("/mnt/x")
    refuse(monkeypatch, code)
    with pytest.raises(GuestError, match=text):
        filesystems.freeze("/mnt/x")


def test_to_thaw_what_is_not_frozen_is_no_error(monkeypatch: pytest.MonkeyPatch, mounted: set[str]) -> None:
    mounted.add("/mnt/x")
    refuse(monkeypatch, errno.EINVAL)
    assert filesystems.thaw("/mnt/x") is False


def test_what_cannot_be_shut_down_says_so(monkeypatch: pytest.MonkeyPatch, mounted: set[str]) -> None:
    mounted.add("/mnt/x")
    refuse(monkeypatch, errno.ENOTTY)
    with pytest.raises(GuestError, match="this kernel cannot shut down a file system of this kind"):
        filesystems.shutdown("/mnt/x", "log")


def test_it_is_thawed_before_it_is_unmounted(asked: Calls, mounted: set[str]) -> None:
    mounted.add("/mnt/x")
    filesystems.umount("/mnt/x")
    assert asked == [("0xc0045878", "/mnt/x"), ("umount", "/mnt/x")]


def test_what_does_not_look_like_a_mount_is_unmounted_too(asked: Calls) -> None:
    filesystems.umount("/mnt/x")
    assert asked == [("umount", "/mnt/x")]


def test_what_was_unmounted_frozen_is_mounted_to_be_thawed(asked: Calls) -> None:
    filesystems.thaw_wherever("/mnt/x", "/dev/vda", "xfs")
    assert asked == [
        ("mount", "/dev/vda", "/mnt/x", "xfs"),
        ("0xc0045878", "/mnt/x"),
        ("umount", "/mnt/x"),
    ]
