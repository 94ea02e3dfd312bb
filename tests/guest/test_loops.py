"""Whose loop devices are, on devices that look like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_kernelfs.guest import journal, loops

WORD: journal.Entry = ["word", "kernelfs-abc"]


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> dict[str, loops.LoopInfo64]:
    """Devices and what is behind each; /dev/loopN has the number 7:N."""
    there: dict[str, loops.LoopInfo64] = {}
    monkeypatch.setattr(loops, "_attached", lambda: iter(list(there.items())))
    number = SimpleNamespace(stat=lambda path: SimpleNamespace(st_rdev=os.makedev(7, int(path[9:]))))
    monkeypatch.setattr(loops, "os", SimpleNamespace(**{**vars(os), **vars(number)}))
    return there


def behind(device: int = 1, name: bytes = b"/x") -> loops.LoopInfo64:
    return loops.LoopInfo64(device=device, file_name=name)


def test_those_attached_through_us_are_ours_and_all_that_lies_on_them(
    attached: dict[str, loops.LoopInfo64],
) -> None:
    attached["/dev/loop3"] = behind(device=os.makedev(7, 1))
    attached["/dev/loop0"] = behind()
    attached["/dev/loop1"] = behind(name=b"kernelfs-abc:/run/kernelfs/x")
    attached["/dev/loop2"] = behind(name=b"kernelfs-abcd:/x")
    assert sorted(loops.ours([WORD], None)) == ["/dev/loop1", "/dev/loop3"]
    assert list(loops.ours([], None)) == []


def test_those_on_what_is_mounted_at_our_places_are_ours(
    attached: dict[str, loops.LoopInfo64], tmp_path: Path
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 0:50 / /run/kernelfs rw - tmpfs x rw\n"
        "2 1 0:51 / /run/kernelfs/mnt/a rw - tmpfs x rw\n"
        "3 0 0:52 / /run/kernelfs-other rw - tmpfs x rw\n"
    )
    attached["/dev/loop0"] = behind(device=51)
    attached["/dev/loop1"] = behind(device=52)
    attached["/dev/loop2"] = behind(device=49)
    entries = [WORD, ["place", "/run/kernelfs", 49]]
    assert sorted(loops.ours(entries, str(mounts))) == ["/dev/loop0", "/dev/loop2"]
    assert list(loops.ours(entries, str(tmp_path / "gone"))) == ["/dev/loop2"]
    assert list(loops.ours(entries, None)) == [], "the numbers may be others' by now"


def test_a_file_system_of_the_machine_that_a_test_has_bound_is_not_ours(
    attached: dict[str, loops.LoopInfo64], tmp_path: Path
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:50 / /mnt rw - tmpfs x rw\n"
        "3 2 8:1 /var /mnt/bound rw - ext4 /dev/sda1 rw\n"
    )
    attached["/dev/loop0"] = behind(device=os.makedev(8, 1))
    assert list(loops.ours([WORD, ["place", "/mnt", 50]], str(mounts))) == []


def test_mount_points_are_read_as_they_are(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("1 0 8:1 / /run/My\\040Disk\u00e9 rw - ext4 /dev/sda1 rw\n")
    assert loops.mount_points(str(mounts)) == [(os.makedev(8, 1), "/run/My Disk\u00e9")]
    assert loops.mount_points(str(tmp_path / "gone")) == []
    assert [fstype for _, _, fstype in loops.mounted(str(mounts))] == ["ext4"]


def test_the_name_carries_the_word_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loops.file_name("/run/kernelfs/x") == b"/run/kernelfs/x"
    monkeypatch.setattr(journal, "noted", lambda kind: {"kernelfs-abc"})
    assert loops.file_name("/run/kernelfs/x") == b"kernelfs-abc:/run/kernelfs/x"
    long = loops.file_name("/run/" + "x" * 100)
    assert (len(long), long[:14], long[-1:]) == (63, b"kernelfs-abc:x", b"x")
