"""cpio archives, read back by a reader that shares nothing with the writer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kernelfs.machines.initramfs.cpio import CpioWriter

from . import newc

Fill = Callable[[CpioWriter], object]


def written(*fills: Fill) -> bytes:
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    for fill in fills:
        fill(writer)
    writer.finish()
    return buffer.getvalue()


def archive(*fills: Fill) -> newc.Archive:
    return newc.read(written(*fills))


def test_a_file_keeps_its_content_and_mode() -> None:
    member = archive(lambda cpio: cpio.file("init", b"#!/bin/sh\n", 0o755))["init"]
    assert (member.kind, member.permissions, member.content) == ("-", 0o755, b"#!/bin/sh\n")


def test_a_symlink_holds_its_target() -> None:
    member = archive(lambda cpio: cpio.symlink("bin", "usr/bin"))["bin"]
    assert (member.kind, member.content) == ("l", b"usr/bin")


def test_a_device_has_its_numbers() -> None:
    member = archive(lambda cpio: cpio.device("dev/null", 1, 3, 0o666))["dev/null"]
    assert (member.kind, member.permissions, member.device) == ("c", 0o666, (1, 3))


def test_folders_above_a_member_come_before_it() -> None:
    read = archive(lambda cpio: cpio.file("usr/lib/x/y", b""))
    assert read.names == ["usr", "usr/lib", "usr/lib/x", "usr/lib/x/y"]
    assert {member.kind for member in read.members[:-1]} == {"d"}


def test_a_folder_is_made_once() -> None:
    read = archive(lambda cpio: cpio.file("etc/a", b""), lambda cpio: cpio.file("etc/b", b""))
    assert read.names == ["etc", "etc/a", "etc/b"]


def test_leading_slashes_do_not_matter() -> None:
    assert written(lambda cpio: cpio.file("/etc/a", b"x")) == written(lambda cpio: cpio.file("etc/a", b"x"))


def test_what_is_there_already_stays() -> None:
    read = archive(lambda cpio: cpio.file("a", b"first"), lambda cpio: cpio.file("/a", b"second"))
    assert [member.content for member in read.members] == [b"first"]


def test_all_belongs_to_root_and_has_no_time() -> None:
    read = archive(lambda cpio: cpio.file("etc/a", b""), lambda cpio: cpio.symlink("b", "a"))
    assert {(member.owner, member.time) for member in read.members} == {((0, 0), 0)}


def test_no_two_members_look_like_hard_links() -> None:
    read = archive(lambda cpio: cpio.file("etc/a", b"same"), lambda cpio: cpio.file("etc/b", b"same"))
    inodes = [member.inode for member in read.members]
    assert len(set(inodes)) == len(inodes)
    assert all(member.links == 1 for member in read.members if member.kind == "-")


def test_a_copy_keeps_permissions_but_no_set_id_bits(tmp_path: Path) -> None:
    source = tmp_path / "mount"
    source.write_bytes(b"\x7fELF")
    source.chmod(0o4755)
    member = archive(lambda cpio: cpio.copy("usr/bin/mount", source))["usr/bin/mount"]
    assert (member.permissions, member.content) == (0o755, b"\x7fELF")


def test_names_may_hold_any_letters() -> None:
    assert archive(lambda cpio: cpio.file("etc/käse", b"")).names == ["etc", "etc/käse"]


@pytest.mark.parametrize("size", range(9))
def test_every_member_is_aligned(size: int) -> None:
    data = written(lambda cpio: cpio.file("a" * (size + 1), b"x" * size), lambda cpio: cpio.file("z", b"end"))
    assert newc.read(data)["z"].content == b"end"
    assert len(data) % 4 == 0


def test_a_second_archive_may_follow() -> None:
    first = written(lambda cpio: cpio.file("a", b"12345"))
    second = written(lambda cpio: cpio.file("b", b"1"))
    end = newc.read(first + second).end
    assert end == len(first)
    assert newc.read(first + second, end).names == ["b"]


@given(st.dictionaries(st.text("abc/", min_size=1).filter(lambda name: name.strip("/")), st.binary()))
def test_equal_input_gives_equal_bytes_that_read_back(files: dict[str, bytes]) -> None:
    # A name below a file cannot be; each file lies in a folder of its own.
    fills = [
        lambda cpio, number=number, name=name, content=content: cpio.file(
            f"{number}/{name.replace('/', '_')}", content
        )
        for number, (name, content) in enumerate(files.items())
    ]
    data = written(*fills)
    assert data == written(*fills)
    read = newc.read(data)
    assert read.end == len(data)
    assert [member.content for member in read.members if member.kind == "-"] == list(files.values())
