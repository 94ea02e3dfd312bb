"""Used space, and waiting for it to come back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_kernelfs.guest import meminfo, space, writeback
from pytest_kernelfs.guest.dispatch import GuestError
from tests.guest.test_patience import stand_still


def test_a_file_is_counted_by_what_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"x" * 8192)
    counted = space.used(str(path), sync=True)
    assert 8192 <= counted["used"] < 1 << 20
    assert counted["how"] == "allocated blocks of the file"


def test_a_folder_is_counted_by_its_file_system(tmp_path: Path) -> None:
    counted = space.used(str(tmp_path), sync=False)
    assert counted["used"] >= 0
    assert counted["how"] == "statfs"


def test_a_folder_with_a_quota_is_counted_as_its_mount_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """statfs of a folder with a project quota tells of the project."""
    asked: list[str] = []
    real = os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    before = space.used(str(tmp_path), sync=False)
    space.used(before["place"], sync=False)
    assert asked == [before["place"]] * 2


def test_a_folder_that_is_deleted_meanwhile_is_looked_for_where_it_was_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mount = tmp_path / "a mount"
    deep = mount / "images" / "one"
    deep.mkdir(parents=True)
    escaped = str(mount).replace(" ", "\\040")
    mounts.write_text(
        f"22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        f"31 22 7:0 / {escaped} rw,relatime shared:1 - xfs /dev/loop0 rw\n"
        f"32 22 7:1 / {escaped}/im rw,relatime - xfs /dev/loop1 rw\n"
    )
    monkeypatch.setattr(space, "_MOUNTS", str(mounts))
    before = space.used(str(deep), sync=True)
    assert (before["place"], before["device"]) == (str(mount), tmp_path.stat().st_dev)
    assert space.used(str(mount), sync=False)["place"] == str(mount)
    assert space.used(str(tmp_path), sync=False)["place"] == "/"
    deep.rmdir()
    assert space.wait_until_used(before["place"], 1 << 60, 0.0, True, before["device"])["used"] >= 0


def test_a_file_that_is_deleted_meanwhile_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 4096)
    before = space.used(str(path), sync=True)
    assert before["place"] == str(path)
    path.unlink()
    with pytest.raises(GuestError, match=r"there is no .*/file \(any more\).*name the mount or a folder"):
        space.wait_until_used(before["place"], 0, 0.0, True, before["device"])


def test_what_is_free_already_is_not_waited_for(tmp_path: Path) -> None:
    done = space.wait_until_used(str(tmp_path), 1 << 60, 60.0, sync=False, device=0)
    assert done["seconds"] < 60
    assert done["held"] == []


def test_who_holds_a_deleted_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "held"
    with path.open("wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        path.unlink()
        done = space.wait_until_used(str(tmp_path), 0, 0.01, sync=True, device=tmp_path.stat().st_dev)
        own = [entry for entry in done["held"] if entry[1] == str(path)]
    assert done["seconds"] >= 0.01
    assert len(own) == 1
    assert own[0][0] >= 4096


def test_what_frees_space_has_the_time_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host lets it stand still for longer than anybody waits; then it goes on where it stopped."""
    stand_still(monkeypatch)
    sizes = iter([7, 7, 0])
    monkeypatch.setattr(space, "used", lambda path, sync: {"used": next(sizes)})
    assert space.wait_until_used(str(tmp_path), 0, 1.0, sync=False, device=0)["used"] == 0
    stand_still(monkeypatch)
    left = iter([7, 7, 0])
    monkeypatch.setattr(meminfo, "read", lambda *names: {"Dirty": next(left)})
    assert writeback.settle(0, 1.0)["left"] == 0


def test_settling_ends_at_once_or_when_its_time_is_up() -> None:
    assert writeback.settle(1 << 60, 60.0)["seconds"] < 60
    start = time.monotonic()
    done = writeback.settle(-1, 0.05)
    assert time.monotonic() - start >= 0.05
    assert done["left"] >= 0


def test_a_snapshot_has_the_time_and_what_reached_each_disk() -> None:
    seen = writeback.snapshot()
    assert {"time", "Dirty", "Writeback", "written"} == set(seen)
    assert all(size > 0 for size in seen["written"].values())
