"""Quotas are read and written through quotactl(2), in its units."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import quota, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

NOTHING = {
    "bytes": 0,
    "inodes": 0,
    "blocks_soft": 0,
    "blocks_hard": 0,
    "inodes_soft": 0,
    "inodes_hard": 0,
}


class Kernel:
    """The quotas of one type on one device: id -> fields."""

    def __init__(self) -> None:
        self.table: dict[int, dict[str, int]] = {}
        self.types: list[int] = []
        self.refusal = 0

    def quotactl(self, command: int, device: str, number: int, entry: Any) -> None:
        self.types.append(command & 0xFF)
        if self.refusal:
            raise OSError(self.refusal, "refused")
        if command >> 8 == 0x800008:
            self.table[number] = {name: getattr(entry, name) for name, _ in entry._fields_}
            return
        wanted = [known for known in sorted(self.table) if known >= number]
        if not wanted or (command >> 8 == 0x800007 and wanted[0] != number):
            raise OSError(errno.ENOENT, "No such file or directory")
        for name, value in self.table[wanted[0]].items():
            setattr(entry, name, value)
        entry.id = wanted[0]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(syscalls, "quotactl", kernel.quotactl)
    return kernel


def test_limits_are_set_in_its_units_and_read_back_in_bytes(kernel: Kernel) -> None:
    quota.set_limits("/dev/x", "project", 42, {"blocks_hard": 8 << 20, "inodes_hard": 100})
    assert kernel.table[42]["blocks_hard"] == 8 << 10
    assert kernel.table[42]["valid"] == 5
    assert quota.usage("/dev/x", "project", 42) == {
        **NOTHING,
        "id": 42,
        "blocks_hard": 8 << 20,
        "inodes_hard": 100,
    }
    assert set(kernel.types) == {2}


def test_limits_that_are_not_named_stay(kernel: Kernel) -> None:
    quota.set_limits("/dev/x", "user", 7, {"blocks_hard": 1 << 20})
    quota.set_limits("/dev/x", "user", 7, {"blocks_soft": 1 << 19, "inodes_soft": 3})
    assert quota.usage("/dev/x", "user", 7)["blocks_hard"] == 1 << 20
    assert kernel.table[7]["inodes_soft"] == 3


def test_who_has_nothing_uses_nothing(kernel: Kernel) -> None:
    assert quota.usage("/dev/x", "group", 5) == {**NOTHING, "id": 5}
    assert quota.report("/dev/x", "group") == []


def test_the_report_has_all(kernel: Kernel) -> None:
    for number in (0, 3, 1000):
        quota.set_limits("/dev/x", "user", number, {"inodes_hard": number + 1})
    found = quota.report("/dev/x", "user")
    assert [(entry["id"], entry["inodes_hard"]) for entry in found] == [(0, 1), (3, 4), (1000, 1001)]


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
def test_quotas_that_are_off_are_told_with_the_way_to_switch_them_on(kernel: Kernel, code: int) -> None:
    kernel.refusal = code
    for ask in (quota.usage, quota.set_limits):
        with pytest.raises(GuestError, match=r"user quotas on /dev/x: refused; .*quota=\['user'\]"):
            ask("/dev/x", "user", 1, *([{"inodes_hard": 1}] if ask is quota.set_limits else []))
    with pytest.raises(GuestError, match="reading of user quotas on /dev/x"):
        quota.report("/dev/x", "user")


def test_a_folder_and_all_below_are_put_into_a_project(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[int, bool]] = []

    def ioctl(handle: int, request: int, argument: bytes) -> bytes:
        if request == 0x401C5820:
            flags, _, _, project, _, _ = quota._FSXATTR.unpack(argument)
            asked.append((project, bool(flags & 0x200)))
        return argument

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    root = tmp_path / "project"
    (root / "below").mkdir(parents=True)
    (root / "below" / "file").touch()
    (root / "link").symlink_to("nowhere")
    quota.set_project(str(root), 42)
    assert sorted(asked) == [(42, False), (42, True), (42, True)]
    quota.set_project(str(tmp_path / "new"), 43)
    assert asked[-1] == (43, True)
    assert (tmp_path / "new").is_dir()
