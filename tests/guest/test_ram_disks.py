"""Devices in memory, against folders that look like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import ram_disks
from pytest_kernelfs.guest.dispatch import GuestError


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


def test_the_first_path_that_appears_is_given(tmp_path: Path) -> None:
    there = tmp_path / "nullb0"
    there.touch()
    assert ram_disks._appeared([str(tmp_path / "null_blk-1"), str(there)]) == str(there)
    with pytest.raises(GuestError, match=r"none of .*missing appeared within 0 s"):
        ram_disks._appeared([str(tmp_path / "missing")], timeout=0)
