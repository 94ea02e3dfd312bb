"""What there is in the kernel that a test can leave there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_kernelfs.guest import inventory, journal


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's folder of block devices; those whose name begins with "v" are the machine's own."""
    monkeypatch.setattr(inventory, "_BLOCK", f"{tmp_path}/block")
    monkeypatch.setattr(inventory, "_NULL_BLK", f"{tmp_path}/nullb")
    monkeypatch.setattr(inventory, "_SWAPS", f"{tmp_path}/swaps")
    real = os.path.realpath
    monkeypatch.setattr(
        os.path,
        "realpath",
        lambda path: real(path) if "/v" in path else f"/sys/devices/virtual/block/{Path(path).name}",
    )
    (tmp_path / "block").mkdir()
    return tmp_path


def add(blocks: Path, name: str, size: int) -> None:
    (blocks / "block" / name).mkdir()
    (blocks / "block" / name / "size").write_text(f"{size}\n")


def devices() -> list[str]:
    return sorted(name for name in inventory.state() if "device: " in name or name.startswith("swap"))


def test_devices_that_somebody_set_up_are_there(blocks: Path) -> None:
    for name, size in {"zram0": 64, "zram1": 0, "md127": 8, "nbd0": 0, "vda": 99}.items():
        add(blocks, name, size)
    assert devices() == ["block device: /dev/md127", "block device: /dev/zram0"]


def test_devices_that_come_with_their_module_are_no_more_than_the_module(blocks: Path) -> None:
    add(blocks, "ram3", 8192)
    add(blocks, "nullb0", 512)
    assert devices() == []
    (blocks / "nullb" / "mine").mkdir(parents=True)
    (blocks / "nullb" / "features").write_text("memory_backed")
    assert devices() == ["null_blk device: mine (in configfs)"]


def test_swap_areas_are_there(blocks: Path) -> None:
    (blocks / "swaps").write_text(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/zram0                              partition\t16380\t\t0\t\t-2\n"
        "/tmp/a\\040b                             file\t\t1020\t\t0\t\t-3\n"
    )
    assert devices() == ["swap area: /dev/zram0", "swap area: /tmp/a\\040b"]


def test_on_a_machine_that_others_use_only_what_is_of_tests_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_handle", -1)
    journal.begin(str(tmp_path / "journal"))
    try:
        journal.note("netns", "ours")
        monkeypatch.setattr(inventory, "_NAMED_NAMESPACES", f"{tmp_path}/netns/")
        for name in ("ours", "theirs"):
            (tmp_path / "netns" / name).mkdir(parents=True)
        found = [name for name in inventory.state() if "process" not in name]
        assert [name for name in found if name.startswith("network namespace")] == ["network namespace: ours"]
        mounts = [name.split(" on ")[1] for name in found if name.startswith("mount: ")]
        assert all((point.split(" ")[0] + "/").startswith(inventory._PLACES) for point in mounts)
        assert not [name for name in found if name.startswith(("file system still", "loop device"))]
    finally:
        os.close(journal._handle)
