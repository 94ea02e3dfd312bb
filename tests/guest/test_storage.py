"""What storage for containers is made of: trees, subvolumes, and how much room they take."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import files, filesystems, storage, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

PAGE = 4096


def test_a_tree_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").touch()
    storage.remove_tree(str(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []
    storage.remove_tree(str(tmp_path / "tree"))


def test_what_cannot_be_frozen_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def refuse(path: str) -> None:
        seen.append(("freeze", path))
        raise GuestError("it cannot be frozen")

    monkeypatch.setattr(filesystems, "freeze", refuse)
    monkeypatch.setattr(syscalls, "sync_file_system", lambda path: seen.append(("sync", path)))
    assert storage.used(str(tmp_path)) > 0
    assert seen == [("freeze", str(tmp_path)), ("sync", str(tmp_path))]


def test_what_was_frozen_is_thawed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(filesystems, "freeze", lambda path: seen.append("freeze"))
    monkeypatch.setattr(filesystems, "thaw", lambda path: seen.append("thaw"))
    storage.used(str(tmp_path))
    assert seen == ["freeze", "thaw"]


def test_only_devices_can_be_discarded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(GuestError, match=r"discarding .*file: "):
        storage.discard(str(path), PAGE)


class FakeBtrfs:
    """Answers the requests of a btrfs whose cleaner needs a few syncs to remove a subvolume."""

    def __init__(self, patches: pytest.MonkeyPatch, syncs: int) -> None:
        self.asked: list[tuple[int, str, bytes]] = []
        self._syncs = syncs
        patches.setattr(storage, "_ioctl", self._answer)

    def _answer(self, path: str, request: int, argument: Any = None) -> bytearray:
        buffer: bytearray = argument if argument is not None else bytearray(8)
        self.asked.append((request, path, bytes(buffer)))
        if request == storage._LOOK_UP_INODE:
            struct.pack_into("=Q", buffer, 0, 257)
        elif request == storage._SYNC:
            self._syncs -= 1
        elif request == storage._SEARCH:
            struct.pack_into("=I", buffer, 64, 1 if self._syncs > 0 else 0)
        elif request == storage._FS_INFO:
            buffer[16:32] = bytes(range(16))
        return buffer

    def requests(self) -> list[int]:
        return [request for request, _, _ in self.asked]


def test_a_subvolume_is_made_with_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    btrfs = FakeBtrfs(monkeypatch, 0)
    storage.make_subvolume(str(tmp_path / "image"), {"bin/app": b"app"})
    [(request, folder, argument)] = btrfs.asked
    assert (request, folder) == (storage._CREATE, str(tmp_path))
    assert (len(argument), argument[8:14]) == (PAGE, b"image\0")
    assert (tmp_path / "image/bin/app").read_bytes() == b"app"


def test_a_snapshot_names_its_source_by_an_open_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def answer(path: str, request: int, argument: bytearray) -> bytearray:
        source = struct.unpack_from("=q", argument)[0]
        seen.append(os.path.realpath(f"/proc/self/fd/{source}"))
        return argument

    monkeypatch.setattr(storage, "_ioctl", answer)
    storage.snapshot_subvolume(str(tmp_path), "/somewhere/else")
    assert seen == [str(tmp_path)]


def test_a_subvolume_is_gone_when_its_tree_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    btrfs = FakeBtrfs(monkeypatch, 3)
    storage.remove_subvolume(str(tmp_path), 60.0)
    again = [storage._SYNC, storage._SEARCH]
    assert btrfs.requests() == [
        *(storage._LOOK_UP_INODE, storage._DESTROY),
        *again * 3,
        storage._SYNC,
    ]
    key = struct.unpack_from("=7Q2I", btrfs.asked[3][2])
    assert key[:3] == (1, 257, 257)
    assert key[7:] == (132, 132)


def test_a_subvolume_that_does_not_go_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBtrfs(monkeypatch, 1000)
    with pytest.raises(GuestError, match="still has the subvolume"):
        storage.remove_subvolume(str(tmp_path), 0.0)


def test_a_subvolume_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    btrfs = FakeBtrfs(monkeypatch, 0)
    storage.remove_subvolume(str(tmp_path / "gone"), 60.0)
    assert btrfs.asked == []


@pytest.mark.parametrize(("number", "said"), [(39, "other subvolumes lie in it"), (28, "No space left")])
def test_a_refusal_names_the_subvolume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refuse(path: str, request: int, argument: Any = None) -> bytearray:
        if request != storage._DESTROY:
            return bytearray(PAGE)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "_ioctl", refuse)
    with pytest.raises(GuestError, match=f"removing the subvolume {tmp_path}: .*{said}"):
        storage.remove_subvolume(str(tmp_path), 1.0)


def test_btrfs_counts_metadata_apart_and_in_all_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBtrfs(monkeypatch, 0)
    folder = "/sys/fs/btrfs/00010203-0405-0607-0809-0a0b0c0d0e0f/allocation"
    told = {"data": "4096", "metadata": "32768", "system": "16384", "global_rsv_size": ""}
    monkeypatch.setattr(os, "listdir", lambda path: list(told) if path == folder else [])
    monkeypatch.setattr(files, "text", lambda path: told[path.split("/")[-2]])
    assert storage.btrfs_used("/mnt") == (4096, 49152)
