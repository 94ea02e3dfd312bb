"""Files in the guest."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from pytest_kernelfs.guest import files
from pytest_kernelfs.guest.dispatch import GuestError


def test_a_file_is_put_with_its_folders_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    files.put(str(path), b"content", 0o750)
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o750


def test_a_file_that_is_put_again_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.put(str(path), b"long content")
    files.put(str(path), b"short")
    assert path.read_bytes() == b"short"


def test_parts_of_a_file_are_put_one_after_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.put(str(path), b"first ")
    files.put(str(path), b"second", append=True)
    assert path.read_bytes() == b"first second"


def test_a_relative_file_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.put("file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("offset", "size", "part"),
    [(0, -1, b"0123456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, 5, b"")],
)
def test_a_part_of_a_file_is_got(tmp_path: Path, offset: int, size: int, part: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert files.get(str(path), offset, size) == part


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 17])
def test_so_many_bytes_are_written(tmp_path: Path, size: int) -> None:
    path = tmp_path / "folder" / "file"
    assert files.write(str(path), size) >= 0
    assert path.stat().st_size == size


def test_written_data_cannot_be_compressed_and_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        files.write(str(tmp_path / name), 1 << 19)
    one, two = ((tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(zlib.compress(one)) > len(one) * 0.99


def test_writing_again_replaces_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    files.write(path, 4096)
    files.write(path, 10)
    assert os.path.getsize(path) == 10  # noqa: PTH202


def test_a_tree_is_made_of_text_bytes_and_folders(tmp_path: Path) -> None:
    root = tmp_path / "lower"
    files.make_tree(str(root), {"etc/hostname": "käse\n", "bin/app": b"\x7fELF", "empty/": ""})
    assert (root / "etc/hostname").read_text() == "käse\n"
    assert (root / "bin/app").read_bytes() == b"\x7fELF"
    assert list((root / "empty").iterdir()) == []


def test_an_empty_tree_is_a_folder(tmp_path: Path) -> None:
    files.make_tree(str(tmp_path / "lower"), {})
    assert (tmp_path / "lower").is_dir()


def test_folders_may_be_there_already(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a/b", "a", "a/b")]
    files.make_folders(paths)
    assert (tmp_path / "a/b").is_dir()


def test_files_empty_folders_and_symlinks_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    for name in ("file", "folder", "link"):
        files.remove(str(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_what_is_gone_already_can_be_removed(tmp_path: Path) -> None:
    files.remove(str(tmp_path / "gone"))


def test_a_folder_with_content_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        files.remove(str(tmp_path))


def test_a_part_of_a_file_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    files.write(str(path), 10, 50)
    content = path.read_bytes()
    assert (len(content), content[:50], content[60:]) == (100, bytes(50), bytes(40))
    assert content[50:60] == files.pregenerate()[:10]


def test_a_part_of_a_new_file_has_a_hole_before_it(tmp_path: Path) -> None:
    files.write(str(tmp_path / "file"), 10, 50)
    assert (tmp_path / "file").stat().st_size == 60


def test_what_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GuestError, match=r"cannot read .*/gone in the machine: No such file or directory"):
        files.get(str(tmp_path / "gone"))
    with pytest.raises(GuestError, match=r"cannot write .*/file/below in the machine: "):
        files.put(str(tmp_path / "file" / "below"), b"")
    with pytest.raises(GuestError, match=r"cannot write .* in the machine: Is a directory"):
        files.write(str(tmp_path), 1)


def test_how_much_was_written_before_it_failed_is_told() -> None:
    with pytest.raises(GuestError, match=r"cannot write /dev/full in the machine: No space left on device"):
        files.write("/dev/full", 5)
