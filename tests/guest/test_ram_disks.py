"""Devices in memory, against folders that look like the kernel's."""

from __future__ import annotations

import ctypes
import errno
import itertools
from pathlib import Path

import pytest

from pytest_kernelfs.guest import attributes, holders, patience, ram_disks
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import Clock


def test_attributes_are_written_and_unknown_ones_told(tmp_path: Path) -> None:
    (tmp_path / "size").touch()
    (tmp_path / "mbps").touch()
    ram_disks._set(str(tmp_path), "size", "64", "null_blk")
    assert (tmp_path / "size").read_text() == "64"
    with pytest.raises(
        GuestError, match="null_blk of this kernel has no attribute 'speed'; it has: mbps, size"
    ):
        ram_disks._set(str(tmp_path), "speed", "1", "null_blk")
    assert not (tmp_path / "speed").exists()


def test_what_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ram_disks, "_NULL_BLK", str(tmp_path))
    assert not ram_disks.remove_null_blk("null_blk-1")
    assert not ram_disks.remove_zram("/dev/zram4711")
    assert not ram_disks.is_loaded("no_such_module")


class Module:
    """One that can be unloaded when it was asked for so many times, or never."""

    def __init__(self, times: int | None = None) -> None:
        self.asked = 0
        self._times = times

    def delete_module(self, name: bytes, flags: int) -> int:
        self.asked += 1
        ctypes.set_errno(errno.EBUSY)
        return 0 if self._times is not None and self.asked >= self._times else -1


def test_a_disk_is_waited_for_longer_if_nobody_is_seen_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """udev, or the kernel's own search for partitions, on a host that has much else to do."""
    monkeypatch.setattr(patience, "time", Clock())
    module = Module(times=200)
    monkeypatch.setattr(ram_disks, "_libc", module)
    monkeypatch.setattr(holders, "of_device", lambda path: [])
    assert ram_disks.unload("scsi_debug", "/dev/sda")
    monkeypatch.setattr(ram_disks, "_libc", Module())
    with pytest.raises(GuestError, match=r"module scsi_debug: .*; nobody is seen to use it"):
        ram_disks.unload("scsi_debug", "/dev/sda")
    with pytest.raises(GuestError, match=r"module brd: .*; something may still use its devices"):
        ram_disks.unload("brd")


def test_who_is_seen_to_use_a_disk_is_named_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", Clock())
    module = Module()
    monkeypatch.setattr(ram_disks, "_libc", module)
    monkeypatch.setattr(holders, "of_device", lambda path: ["7 (sleep)"])
    with pytest.raises(GuestError, match=r"cannot unload the module scsi_debug: .*; in use by 7 \(sleep\)$"):
        ram_disks.unload("scsi_debug", "/dev/sda")
    assert module.asked < 100


def test_a_zram_device_that_somebody_looks_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "time", Clock())
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    monkeypatch.setattr(holders, "of_device", lambda path: [])
    busy = iter([True] * 200)

    def write(path: str, text: str) -> None:
        if next(busy, False):
            raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(attributes, "write", write)
    assert ram_disks.remove_zram("/dev/zram0")
    busy = iter(itertools.repeat(True))
    with pytest.raises(GuestError, match=r"cannot remove /dev/zram0: .*; nobody is seen to use it"):
        ram_disks.remove_zram("/dev/zram0")


def test_the_first_path_that_appears_is_given(tmp_path: Path) -> None:
    there = tmp_path / "nullb0"
    there.touch()
    assert ram_disks._appeared([str(tmp_path / "null_blk-1"), str(there)]) == str(there)
    with pytest.raises(GuestError, match=r"none of .*missing appeared within 0 s"):
        ram_disks._appeared([str(tmp_path / "missing")], timeout=0)
