"""What there is in the kernel that a test can leave there."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
        lambda path, **how: (
            f"/sys/devices/virtual/block/{Path(path).name}"
            if str(path).startswith(f"{tmp_path}/block/") and "/v" not in str(path)[len(str(tmp_path)) :]
            else real(path, **how)
        ),
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


def attach(blocks: Path, name: str, file: str) -> None:
    (blocks / "block" / name / "loop").mkdir(parents=True)
    (blocks / "block" / name / "loop/backing_file").write_text(f"{file}\n")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine is one that others use, too."""
    monkeypatch.setattr(journal, "_handle", -1)
    journal.begin(str(tmp_path / "journal"))
    yield
    os.close(journal._handle)


def test_all_loop_devices_are_there(blocks: Path) -> None:
    attach(blocks, "loop0", "/var/disk")
    add(blocks, "loop1", 0)
    assert devices() == ["loop device: /dev/loop0 on /var/disk"]


def test_on_a_shared_machine_loop_devices_on_files_at_the_places_of_tests_count(
    blocks: Path, shared: None
) -> None:
    for name, file in {"loop0": "/snap/core.img", "loop1": "/tmp/disk", "loop2": "/tmp2/x"}.items():
        attach(blocks, name, file)
    assert devices() == ["loop device: /dev/loop1 on /tmp/disk"]


def test_where_those_places_are_the_tests_own_a_path_tells_nothing(blocks: Path, shared: None) -> None:
    for place in ("/run", "/tmp", "/mnt"):
        journal.note("place", place, 49)
    attach(blocks, "loop1", "/tmp/disk")
    assert devices() == []


def test_on_a_machine_that_others_use_only_what_is_of_tests_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: None
) -> None:
    journal.note("netns", "ours")
    monkeypatch.setattr(inventory, "_NAMED_NAMESPACES", f"{tmp_path}/netns/")
    for name in ("ours", "theirs"):
        (tmp_path / "netns" / name).mkdir(parents=True)
    found = [name for name in inventory.state() if "process" not in name]
    assert [name for name in found if name.startswith("network namespace")] == ["network namespace: ours"]
    mounts = [name.split(" on ")[1] for name in found if name.startswith("mount: ")]
    assert all((point.split(" ")[0] + "/").startswith(inventory._PLACES) for point in mounts)
    loops = [name.split(" on ")[1] for name in found if name.startswith("loop device: ")]
    assert all(path.startswith(inventory._PLACES) for path in loops)
    assert not [name for name in found if name.startswith("file system still")]


HIDDEN = """\
64 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
80 64 0:50 / /tmp rw - tmpfs tmpfs rw
81 64 0:51 / /mnt rw - tmpfs tmpfs rw
90 64 8:2 / /tmp/x/sub rw master:21 - ext4 /dev/sdb1 rw
91 90 8:3 / /tmp/x/sub/deeper rw master:22 - ext4 /dev/sdc1 rw
92 81 8:4 / /mnt/mine rw - xfs /dev/loop1 rw
93 92 8:5 / /mnt/mine/inner rw - tmpfs none rw
"""


def test_what_others_mount_below_what_our_own_tmpfs_covers_is_not_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_text(HIDDEN)
    monkeypatch.setattr(inventory, "_MOUNTINFO", f"{tmp_path}/mountinfo")
    everything = [row[0] for row in inventory._mounts()]
    assert "/tmp/x/sub" in everything
    places = [("place", "/tmp", os.makedev(0, 50)), ("place", "/mnt", os.makedev(0, 51))]
    monkeypatch.setattr(journal, "is_kept", lambda: True)
    monkeypatch.setattr(journal, "entries", lambda: places)
    assert [row[0] for row in inventory._mounts()] == ["/tmp", "/mnt", "/mnt/mine", "/mnt/mine/inner"]
    # Without a namespace to themselves tests share these places with others.
    monkeypatch.setattr(journal, "entries", lambda: places[1:])
    assert "/tmp/x/sub/deeper" in [row[0] for row in inventory._mounts()]
