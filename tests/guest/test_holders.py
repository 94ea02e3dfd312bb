"""Who is found to keep a mount busy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.guest import holders


def test_a_process_with_an_open_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with (tmp_path / "folder" / "file").open("w"):
        assert [text.split()[0] for text in holders.of(str(tmp_path / "folder"))] == [str(os.getpid())]
    assert holders.of(str(tmp_path / "folder")) == []


def test_a_name_that_only_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "folder-2").mkdir()
    with (tmp_path / "folder-2" / "file").open("w"):
        assert holders.of(str(tmp_path / "folder")) == []


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/dev/vdx with a partition, in folders that look like the kernel's; gives that of the disk."""
    folder = tmp_path / "block" / "vdx"
    (folder / "holders").mkdir(parents=True)
    (folder / "vdx1" / "holders").mkdir(parents=True)
    for name in ("mounts", "swaps"):
        (tmp_path / name).touch()
        monkeypatch.setattr(holders, f"_{name.upper()}", str(tmp_path / name))
    monkeypatch.setattr(holders, "_BLOCK", str(tmp_path / "block"))
    return folder


def test_what_uses_a_disk_is_named(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holders.of_device("/dev/vdx") == []
    opened = {"/dev/vdx": ["7 (sleep)", "8 ((udev-worker))"], "/dev/vdx1": ["9 (systemd-udevd)"]}
    monkeypatch.setattr(holders, "_processes", opened.__getitem__)
    (tmp_path / "mounts").write_text("/dev/vdx1 /mnt/a xfs rw 0 0\n/dev/vdx10 /mnt/b xfs rw 0 0\n")
    (tmp_path / "swaps").write_text("Filename\tType\n/dev/vdx  partition\n/dev/vdy  partition\n")
    (disk / "vdx1" / "holders" / "dm-0").touch()
    assert holders.of_device("/dev/vdx") == [
        "7 (sleep)",
        "the xfs mounted on /mnt/a",
        "swap on /dev/vdx",
        "/dev/dm-0",
    ]


def test_what_is_mounted_below_is_named() -> None:
    found = holders.of("/")
    assert any(text.endswith("mounted on /proc") for text in found)
    assert not any(text.endswith("mounted on /") for text in found)
