"""Unmounting under the stopwatch, with an umount2 of the test's own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import blocks, holders, kmsg, mounts, syscalls

PATHS = ["/mnt/a", "/mnt/b", "/mnt/c"]
Umount = Callable[[str], None]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Unmount three paths on one disk, to which 4096 bytes are written between any two looks."""
    written: Iterator[int] = iter(range(0, 1 << 20, 4096))
    monkeypatch.setattr(blocks, "disk_below", lambda path: "vda" if path else "")
    monkeypatch.setattr(blocks, "bytes_written", lambda device: next(written))

    def run(umount: Umount, *, parallel: bool, backing: str = "/mnt/x") -> dict[str, Any]:
        monkeypatch.setattr(syscalls, "umount", umount)
        return mounts.umount_timed(PATHS, [backing] * len(PATHS), parallel)

    return run


def test_one_after_another_is_in_order(timed: Callable[..., dict[str, Any]]) -> None:
    seen: list[tuple[str, str]] = []
    timed(lambda path: seen.append((path, threading.current_thread().name)), parallel=False)
    assert [path for path, _ in seen] == PATHS
    assert len({thread for _, thread in seen}) == 1


def test_in_parallel_all_are_under_way_at_the_same_time(timed: Callable[..., dict[str, Any]]) -> None:
    together = threading.Barrier(len(PATHS), timeout=10)

    def umount(path: str) -> None:
        together.wait()

    assert timed(umount, parallel=True)["errors"] == ["", "", ""]


@pytest.mark.parametrize("parallel", [False, True])
def test_a_failure_is_told_of_its_own_path_only(
    timed: Callable[..., dict[str, Any]], parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "of", lambda target: ["7 (sh)"])

    def umount(path: str) -> None:
        if path == "/mnt/b":
            raise OSError(errno.EBUSY, "Device or resource busy", path)

    result = timed(umount, parallel=parallel)
    assert result["errors"] == ["", "Device or resource busy", ""]
    assert result["holders"] == [[], ["7 (sh)"], []]
    assert len(result["seconds"]) == 3
    assert all(seconds >= 0 for seconds in result["seconds"])


def test_what_was_written_to_the_disk_meanwhile_is_counted_once(
    timed: Callable[..., dict[str, Any]],
) -> None:
    assert timed(lambda path: None, parallel=False)["written"] == {"vda": 4096}


def test_without_a_disk_nothing_is_counted(timed: Callable[..., dict[str, Any]]) -> None:
    assert timed(lambda path: None, parallel=False, backing="")["written"] == {}


def test_memory_is_watched_from_before_to_after(timed: Callable[..., dict[str, Any]]) -> None:
    watched = timed(lambda path: None, parallel=False)["watch"]
    assert len(watched) >= 2
    assert all(len(sample) == 3 for sample in watched)


def test_a_remount_keeps_the_flags_that_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, str]] = []
    monkeypatch.setattr(mounts, "_options_of", lambda target: ["rw", "noatime", "nosuid", "size=8192k"])
    monkeypatch.setattr(
        syscalls, "mount", lambda source, target, fstype, flags, data: asked.append((target, flags, data))
    )
    monkeypatch.setattr(kmsg, "open_at_end", lambda: os.open(os.devnull, os.O_RDONLY))
    mounts.remount("/mnt/x", "suid,ro,size=16M")
    assert asked == [("/mnt/x", 32 | 1 | 1024, "size=16M")]


def test_the_options_of_a_mount_are_those_of_the_topmost() -> None:
    assert "rw" in mounts._options_of("/proc")
    assert mounts._options_of("/nothing/is/mounted/here") == []


def test_whether_something_is_mounted_is_asked_of_the_kernel(tmp_path: Path) -> None:
    assert mounts.is_mounted("/proc")
    assert not mounts.is_mounted(str(tmp_path))
