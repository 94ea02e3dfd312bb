"""The disk below a file system, in a /sys and a table of mounts that were made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import blocks

# A device that is there wherever the test runs.
DISK = "/dev/null"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the disk vda, and a loop device on the file ``backing``; mounts are to be added."""
    for name, number in (("vda", "254:0"), ("loop0", "7:0")):
        (tmp_path / "sys/block" / name).mkdir(parents=True)
        (tmp_path / "sys/dev/block").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/dev/block" / number).symlink_to(tmp_path / "sys/block" / name)
    (tmp_path / "sys/block/loop0/loop").mkdir()
    (tmp_path / "sys/block/loop0/loop/backing_file").write_text(f"{tmp_path}/backing\n")
    (tmp_path / "backing").touch()
    (tmp_path / "mounts").write_text("1 1 0:2 / / rw - rootfs none rw\n")
    monkeypatch.setattr(blocks, "_SYS", str(tmp_path / "sys"))
    monkeypatch.setattr(blocks, "_MOUNTS", str(tmp_path / "mounts"))
    numbers = {DISK: "254:0", "/mnt/xfs": "254:0", "/mnt/ext4": "7:0"}
    monkeypatch.setattr(blocks, "_number", lambda path: numbers.get(path, "0:99"))
    return tmp_path


def mount(machine: Path, place: str, fstype: str, source: str) -> None:
    with (machine / "mounts").open("a") as file:
        file.write(f"50 1 0:35 / {place} rw,relatime shared:7 - {fstype} {source} rw\n")


def test_it_is_known_by_the_number_of_the_file_system(machine: Path) -> None:
    assert blocks.disk_below("/mnt/xfs") == "vda"


def test_for_btrfs_whose_numbers_are_its_own_the_table_of_mounts_is_asked(machine: Path) -> None:
    mount(machine, "/mnt", "tmpfs", "tmpfs")
    mount(machine, "/mnt/btrfs", "btrfs", DISK)
    mount(machine, "/mnt/btrfs-2", "tmpfs", "tmpfs")
    assert blocks.disk_below("/mnt/btrfs/folder") == "vda"
    assert blocks.disk_below("/mnt/other") == ""
    assert blocks.disk_below("/elsewhere") == ""


def test_a_loop_device_is_followed_to_a_file_on_btrfs(machine: Path) -> None:
    assert blocks.disk_below("/mnt/ext4") == "loop0", "its file lies in memory"
    mount(machine, str(machine), "btrfs", DISK)
    assert blocks.disk_below("/mnt/ext4") == "vda"


def test_a_mount_hides_the_one_that_was_there_before(machine: Path) -> None:
    mount(machine, "/mnt/btrfs", "btrfs", DISK)
    mount(machine, "/mnt/btrfs", "tmpfs", "tmpfs")
    assert blocks.disk_below("/mnt/btrfs") == ""
