"""Undoing what a journal tells of, with nothing that a kernel has to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kernelfs.guest import dm, knobs, loops, syscalls, tidy
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import stand_still

PATIENCE_S = 0.2


@pytest.fixture
def sysctls(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The machine's sysctls."""
    values = {"vm.swappiness": "60", "net.core.somaxconn": "1", "vm.dirty_ratio": "20"}

    def read(name: str) -> str:
        if name not in values:
            raise GuestError(f"this kernel has no sysctl {name}")
        return values[name]

    monkeypatch.setattr(knobs, "read_sysctl", read)
    monkeypatch.setattr(knobs, "restore_sysctls", values.update)
    return values


def test_sysctls_are_as_before_the_first_change(sysctls: dict[str, str]) -> None:
    entries = [
        ["sysctl", "vm.swappiness", "vm.swappiness", "10"],
        ["sysctl", "vm.swappiness", "vm.swappiness", "20"],
        ["sysctl", "vm.dirty_ratio", "vm.dirty_ratio", "20"],
        ["sysctl", "gone", "gone", "1"],
    ]
    assert tidy.tidy(entries, {}, PATIENCE_S) == (["sysctl vm.swappiness"], [])
    assert sysctls["vm.swappiness"] == "10"
    assert tidy.tidy(entries, {}, PATIENCE_S) == ([], []), "there is nothing left to do"


def test_sysctls_that_went_with_their_namespace_are_left_alone(sysctls: dict[str, str]) -> None:
    entry = ["sysctl", "net.core.somaxconn", "net.core.somaxconn", "4096"]
    assert tidy.tidy([["namespaces"], entry], {}, PATIENCE_S) == ([], [])
    assert tidy.tidy([entry], {}, PATIENCE_S) == (["sysctl net.core.somaxconn"], [])


@pytest.mark.parametrize(("release", "undone"), [("6.12.9-amd64", True), ("6.14.0", False), ("7.2.1", False)])
def test_the_most_processes_are_of_a_namespace_since_a_version(
    sysctls: dict[str, str], monkeypatch: pytest.MonkeyPatch, release: str, undone: bool
) -> None:
    sysctls["kernel.pid_max"] = "32768"
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    entry = ["sysctl", "kernel.pid_max", "kernel.pid_max", "4194304"]
    tidy.tidy([["namespaces"], entry], {}, PATIENCE_S)
    assert sysctls["kernel.pid_max"] == ("4194304" if undone else "32768")


def test_files_limits_and_folders_go(tmp_path: Path) -> None:
    file, limits, cache = tmp_path / "disk", tmp_path / "blkio.throttle", tmp_path / "write_cache"
    folder = tmp_path / "folder"
    file.touch()
    folder.mkdir()
    limits.write_text("7:3 1000\n7:4 2000\n")
    cache.write_text("write through")
    entries = [
        ["file", str(file)],
        ["file", str(tmp_path / "never-made")],
        ["throttle", str(limits), "7:3", "5"],
        ["throttle", str(limits), "7:3", "1000"],
        ["throttle", str(limits), "7:4", "1000"],
        ["throttle", str(limits), "7:9", "1000"],
        ["write cache", str(cache), "write back", "write through"],
        ["folder", str(folder)],
    ]
    removed, left = tidy.tidy(entries, {}, PATIENCE_S)
    assert left == []
    assert sorted(removed) == [f"file {file}", "throttle of 7:3", f"write cache in {cache}"]
    assert limits.read_text() == "7:3 0"
    assert cache.read_text() == "write back"
    assert not file.exists()
    assert not folder.exists()


def test_limits_of_version_2_are_lifted_in_its_words(tmp_path: Path) -> None:
    limits = tmp_path / "io.max"
    limits.write_text("7:3 rbps=max wbps=1000 riops=max wiops=max\n")
    assert tidy.hurry([["throttle", str(limits), "7:3", ""]], 0) == ["throttle of 7:3"]
    assert limits.read_text() == "7:3 rbps=max wbps=max riops=max wiops=max"


def test_what_others_have_set_for_a_device_since_stays(tmp_path: Path) -> None:
    limits, cache = tmp_path / "blkio.throttle", tmp_path / "write_cache"
    limits.write_text("7:3 77\n")
    cache.write_text("write through")
    entries = [
        ["throttle", str(limits), "7:3", "1000"],
        ["write cache", str(cache), "write through", "write back"],
        ["write cache", str(cache), "write back", "write through"],
    ]
    assert tidy.tidy(entries, {}, PATIENCE_S) == ([], [])
    assert limits.read_text() == "7:3 77\n"
    assert cache.read_text() == "write through"


def test_only_what_can_be_frozen_is_opened_to_thaw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FUSE whose server hangs, an overlay on it, or a network's file system lets nobody go who opens it."""
    mounts = [
        (os.makedev(0, 9), "/run/kernelfs", "tmpfs"),
        (os.makedev(7, 1), "/run/kernelfs/ext4", "ext4"),
        (os.makedev(0, 51), "/run/kernelfs/dead", "fuse.sshfs"),
        (os.makedev(7, 2), "/run/kernelfs/ntfs", "fuseblk"),
        (os.makedev(0, 52), "/run/kernelfs/overlay", "overlay"),
        (os.makedev(0, 53), "/run/kernelfs/btrfs", "btrfs"),
        (os.makedev(0, 54), "/run/kernelfs/nfs", "nfs4"),
    ]
    opened: list[str] = []
    unmounted: list[str] = []
    monkeypatch.setattr(loops, "mounted", lambda _mounts: mounts)
    monkeypatch.setattr(tidy, "_thaw", opened.append)
    monkeypatch.setattr(syscalls, "umount", unmounted.append)
    place = ["place", "/run/kernelfs", 9]
    assert tidy.hurry([place], 7) == []
    assert opened == [f"/proc/7/root/run/kernelfs/{name}" for name in ("btrfs", "ext4")]
    opened.clear()
    tidy.tidy([place], {}, PATIENCE_S)
    assert opened == ["/run/kernelfs/btrfs", "/run/kernelfs/ext4"]
    assert unmounted == [point for _, point, _ in reversed(mounts)]


def test_devices_go_from_above_and_what_stays_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    there = {"/dev/loop1": loops.LoopInfo64(inode=1), "/dev/loop2": loops.LoopInfo64(inode=2)}

    def remove(name: str, patience: float) -> bool:
        order.append(name)
        return True

    def clear(path: str) -> None:
        order.append(path)
        # The first of them is free once the device on it has gone; somebody holds the other.
        if path == "/dev/loop1" and "one" in order:
            del there[path]

    monkeypatch.setattr(dm, "exists", lambda name: name == "one")
    monkeypatch.setattr(dm, "resume", lambda name, missing_ok: True)
    monkeypatch.setattr(dm, "remove", remove)
    monkeypatch.setattr(loops, "info_of", there.get)
    monkeypatch.setattr(loops, "clear", clear)
    removed, left = tidy.tidy([["dm", "one"]], dict(there), PATIENCE_S)
    assert removed == ["device one", "loop device /dev/loop1"]
    assert left == ["loop device /dev/loop2 (it is still in use)"]
    assert order.count("/dev/loop2") == 1, "asked again, it may be another's"


def test_a_device_that_is_let_go_late_because_the_machine_stood_still_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_still(monkeypatch)
    looks = iter([True, True, True, False])

    def remove(name: str, patience: float) -> bool:
        if next(looks):
            raise GuestError("it is still open")
        return True

    monkeypatch.setattr(dm, "exists", lambda name: True)
    monkeypatch.setattr(dm, "resume", lambda name, missing_ok: True)
    monkeypatch.setattr(dm, "remove", remove)
    assert tidy.tidy([["dm", "one"]], {}, 1.0) == (["device one"], [])


def test_a_loop_device_that_is_anothers_by_now_is_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[str] = []
    monkeypatch.setattr(loops, "info_of", lambda path: loops.LoopInfo64(inode=2))
    monkeypatch.setattr(loops, "clear", cleared.append)
    assert tidy.tidy([], {"/dev/loop1": loops.LoopInfo64(inode=1)}, PATIENCE_S) == ([], [])
    assert cleared == []


def test_children_of_children_end_too() -> None:
    code = (
        "import ctypes, os, subprocess, sys\n"
        "from pytest_kernelfs.guest import tidy\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
        "subprocess.Popen(['sh', '-c', 'setsid sleep 60 & exec sleep 60'])\n"
        "print(tidy.end_children(120.0), list(tidy._children(os.getpid())))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout == "[] []\n"


def test_what_fails_is_told_and_the_rest_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_args: Any) -> Any:
        raise OSError(5, os.strerror(5))

    file = tmp_path / "disk"
    file.touch()
    monkeypatch.setattr(knobs, "read_sysctl", refuse)
    removed, left = tidy.tidy([["sysctl", "a", "a", "1"], ["file", str(file)]], {}, PATIENCE_S)
    assert removed == [f"file {file}"]
    assert left == ["sysctl a ([Errno 5] Input/output error)"]
