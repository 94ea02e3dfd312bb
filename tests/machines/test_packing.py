"""A folder of the host, packed and unpacked."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import sharing
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.machines import packing
from pytest_kernelfs.machines.packing import IGNORE_FILE, batches, scan

Pack = Callable[[], Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def pack(source: Path, tmp_path: Path) -> Pack:
    """Pack ``source``, and give the folder that it was unpacked in."""

    def pack() -> Path:
        target = tmp_path / "target"
        for batch in batches(scan(source)):
            sharing.unpack(str(target), batch)
        return target

    return pack


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_modes_times_and_links_are_kept(source: Path, pack: Pack) -> None:
    (source / "bin").mkdir()
    (source / "bin/tool").write_bytes(b"#!/bin/sh\n")
    (source / "bin/tool").chmod(0o4755)
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o600)
    (source / "link").symlink_to("bin/tool")
    (source / "dead").symlink_to("/nowhere/at all")
    os.utime(source / "secret", ns=(0, 981173106_123456789))
    (source / "bin").chmod(0o555)
    os.utime(source / "bin", ns=(0, 1_000_000_007))
    target = pack()
    assert names(target) == names(source)
    for name in ("bin", "bin/tool", "secret", ""):
        before, after = (source / name).stat(), (target / name).stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (target / "link").readlink() == Path("bin/tool")
    assert (target / "dead").readlink() == Path("/nowhere/at all")
    assert (target / "secret").read_text() == "x"


@given(sizes=st.lists(st.integers(0, 50), max_size=12))
@settings(max_examples=30, deadline=None)
def test_files_of_all_sizes_pass_in_parts(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    contents = {f"f{number}": os.urandom(size) for number, size in enumerate(sizes)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_BATCH", 16)
        packed = list(batches(scan(folder)))
    target = tmp_path_factory.mktemp("target")
    for batch in packed:
        sharing.unpack(str(target), batch)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == contents
    assert len(packed) >= sum(sizes) // 16


def test_what_was_there_before_is_replaced(source: Path, pack: Pack) -> None:
    (source / "file").write_text("long before")
    (source / "link").symlink_to("file")
    pack()
    (source / "file").write_text("new")
    (source / "link").unlink()
    (source / "link").symlink_to("other")
    target = pack()
    assert (target / "file").read_text() == "new"
    assert (target / "link").readlink() == Path("other")


def test_holes_stay_holes(source: Path, pack: Pack) -> None:
    with (source / "disk").open("wb") as file:
        file.write(b"start")
        file.seek(40 << 20)
        file.write(b"end")
    assert sum(one.size for one in scan(source)) < 1 << 20
    disk = pack() / "disk"
    assert disk.read_bytes() == (source / "disk").read_bytes()
    assert disk.stat().st_blocks * 512 < 4 << 20
    assert sum(len(batch) for batch in batches(scan(source))) < 4 << 20


def test_many_small_files_go_together(source: Path, pack: Pack) -> None:
    for number in range(3000):
        (source / f"f{number}").touch()
    assert len(list(batches(scan(source)))) == 2
    assert len(names(pack())) == 3000


def test_odd_names_pass(source: Path, pack: Pack) -> None:
    odd = {b"b\xff\xfe", "ü\n".encode(), b"-rf *"}
    for name in odd:
        (source / os.fsdecode(name)).write_text("x")
    assert {os.fsencode(path.name) for path in pack().iterdir()} == odd


def test_sockets_and_pipes_are_left_out(source: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(source / "pipe")
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    (source / "file").touch()
    assert names(pack()) == {"file"}


def test_histories_caches_and_environments_are_left_out(source: Path, pack: Pack) -> None:
    for name in (".git/HEAD", "pkg/__pycache__/a.pyc", "pkg/a.py", "my env/pyvenv.cfg", "my env/bin/python"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    assert names(pack()) == {"pkg", "pkg/a.py"}


def test_an_ignore_file_names_more(source: Path, pack: Pack) -> None:
    for name in ("target/debug/a", "target/release/a", "data/big.img", "docs/a.o", "b.o", "keep"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    (source / "docs/data").mkdir()
    (source / IGNORE_FILE).write_text("# built\ntarget/debug\n*.o\n\n/data/\n")
    assert names(pack()) == {
        *("target", "target/release", "target/release/a", "docs", "docs/data", "keep", IGNORE_FILE)
    }


def test_an_ignored_folder_need_not_be_readable(source: Path) -> None:
    (source / IGNORE_FILE).write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"--kernelfs-share: cannot read .*\.kernelfsignore: 'utf-8'"):
        scan(source)


def test_what_is_gone_meanwhile_is_left_out(source: Path, tmp_path: Path) -> None:
    for name in ("file", "link", "kept"):
        (source / name).write_text("x")
    (source / "link").unlink()
    (source / "link").symlink_to("file")
    found = scan(source)
    (source / "file").unlink()
    (source / "link").unlink()
    for batch in batches(found):
        sharing.unpack(str(tmp_path / "target"), batch)
    assert names(tmp_path / "target") == {"kept"}


def test_a_file_that_may_not_be_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").write_text("x")
    found = scan(source)

    def refuse(path: Path, _mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        UsageError, match=r"cannot read .*/file: Permission d.*name it in the file \.kernelfsig"
    ):
        list(batches(found))


def test_a_folder_that_is_gone(source: Path) -> None:
    source.rmdir()
    with pytest.raises(UsageError, match=r"cannot read .*/source: No such file"):
        scan(source)


def test_what_cannot_be_unpacked(source: Path, tmp_path: Path) -> None:
    (source / "file").write_text("x")
    (tmp_path / "target").touch()
    (batch,) = batches(scan(source))
    with pytest.raises(GuestError, match=r"cannot unpack a share at .*target: File exists"):
        sharing.unpack(str(tmp_path / "target"), batch)
