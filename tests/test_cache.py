"""The cache: each entry is built once, whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache, default_root, explain_os_errors
from pytest_kernelfs.errors import InfrastructureError

BUILD_IN_A_PROCESS = """
import os, sys
from pathlib import Path
from pytest_kernelfs.cache import Cache

root, log = Path(sys.argv[1]), Path(sys.argv[2])
sys.stdin.readline()  # all processes start together

def build(folder):
    with log.open("a") as file:
        file.write("built\\n")
    (folder / "content").write_text("whole")

entry = Cache(root).entry("kind", "key", build)
print((entry / "content").read_text())
"""

BUILD_AND_HANG = """
import sys
from pathlib import Path
from pytest_kernelfs.cache import Cache

def build(folder):
    print("building", flush=True)
    sys.stdin.read()

Cache(Path(sys.argv[1])).entry("kind", sys.argv[2], build)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def build(folder: Path) -> None:
    (folder / "content").write_text("whole")


def refuse(folder: Path) -> None:
    raise AssertionError("it is built already")


def files_in(root: Path) -> list[str]:
    """What there is besides locks."""
    return sorted(path.name for path in root.rglob("*") if path.is_file() and "locks" not in path.parts)


def test_an_entry_holds_what_was_built(cache: Cache) -> None:
    entry = cache.entry("kind", "key", build)
    assert entry == cache.root / "kind" / "key"
    assert (entry / "content").read_text() == "whole"


def test_an_entry_that_exists_is_not_built_again(cache: Cache) -> None:
    first = cache.entry("kind", "key", build)
    assert cache.entry("kind", "key", refuse) == first


def test_entries_of_other_kinds_and_keys_are_others(cache: Cache) -> None:
    entries = {cache.entry(kind, key, build) for kind in ("a", "b") for key in ("x", "y")}
    assert len(entries) == 4


def test_others_may_read_an_entry(cache: Cache) -> None:
    assert cache.entry("kind", "key", build).stat().st_mode & 0o777 == 0o755


def test_threads_build_an_entry_once(cache: Cache) -> None:
    built: list[int] = []
    together = threading.Barrier(8)

    def note(folder: Path) -> None:
        built.append(threading.get_ident())
        build(folder)

    def ask(_: int) -> str:
        together.wait()
        return (cache.entry("kind", "key", note) / "content").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["whole"] * 8
    assert len(built) == 1


def test_processes_build_an_entry_once(cache: Cache, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", BUILD_IN_A_PROCESS, str(cache.root), str(log)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = [process.communicate("go\n", timeout=300)[0] for process in processes]
    assert answers == ["whole\n"] * 4
    assert log.read_text() == "built\n"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), InfrastructureError("no")])
def test_a_failed_build_leaves_nothing(cache: Cache, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise error

    with pytest.raises(type(error)):
        cache.entry("kind", "key", fail)
    assert files_in(cache.root) == []
    assert [path.name for path in (cache.root / "kind").iterdir()] == []


def test_after_a_failed_build_the_next_succeeds(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (it has no text)
        cache.entry("kind", "key", fail)
    assert cache.entry("kind", "key", build).is_dir()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "the disk is full; make room there, or"),
        (errno.EDQUOT, "the disk quota is used up; make room there, or"),
        (errno.EROFS, "the file system is read-only;"),
        (errno.EACCES, "permission is denied;"),
    ],
)
def test_a_build_without_room_is_told_in_one_line(cache: Cache, code: int, reason: str) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_text("half")
        raise OSError(code, os.strerror(code))

    with pytest.raises(InfrastructureError) as caught:
        cache.entry("kind", "key", fail)
    assert str(caught.value) == (
        f"cannot write in {cache.root}: {reason} choose another folder with --kernelfs-cache DIR"
    )
    assert files_in(cache.root) == []


def test_other_os_errors_are_left_alone(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EIO, "disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        cache.entry("kind", "key", fail)


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.entry("kind", "key", build),
        lambda cache: cache.lock("kind", "key").__enter__(),
        lambda cache: cache.write_text(cache.root / "a" / "b", "text"),
    ],
    ids=["entry", "lock", "write_text"],
)
def test_a_folder_below_a_file_is_told_in_one_line(tmp_path: Path, use: Callable[[Cache], object]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="a part of the path is not a folder"):
        use(Cache(tmp_path / "file" / "cache"))


def test_a_full_disk_is_told_when_the_folder_is_made(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with pytest.raises(InfrastructureError, match="the disk is full"):
        cache.entry("kind", "key", build)


def test_an_entry_of_a_read_only_cache_can_be_used(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = cache.entry("kind", "key", build)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(os, "utime", fail)
    assert cache.entry("kind", "key", refuse) == entry


def test_using_an_entry_is_noted_in_its_time(cache: Cache) -> None:
    entry = cache.entry("kind", "key", build)
    os.utime(entry, (1, 1))
    cache.entry("kind", "key", refuse)
    assert entry.stat().st_mtime > 1


@pytest.mark.parametrize("key", ["key", "0123456789abcdef" * 4], ids=["short", "long"])
def test_what_a_killed_build_leaves_is_unfinished_as_soon_as_it_is_killed(cache: Cache, key: str) -> None:
    command = [sys.executable, "-c", BUILD_AND_HANG, str(cache.root), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "building\n"
        (folder,) = (cache.root / "kind").iterdir()
        assert cache.unfinished("kind") == []
        builder.kill()
    assert cache.unfinished("kind") == [folder]
    assert cache.unfinished("another kind") == []


def test_entries_are_not_unfinished(cache: Cache) -> None:
    cache.entry("kind", "key", build)
    cache.write_text(cache.root / "kind" / ".key.json.abc", "a file that is about to be renamed")
    assert cache.unfinished("kind") == []


@pytest.mark.parametrize(
    ("name", "left"),
    [(".key.removed-12", []), (".other.abc", [".other.abc"]), (".doomed-key", [".doomed-key"])],
)
def test_what_somebody_works_on_is_not_unfinished(cache: Cache, name: str, left: list[str]) -> None:
    with cache.lock("kind", "key"), cache.lock("kind", "another"):
        (cache.root / "kind" / name).mkdir()
        assert [path.name for path in cache.unfinished("kind")] == left
    assert [path.name for path in cache.unfinished("kind")] == [name]


def test_one_holder_at_a_time_has_a_lock(cache: Cache) -> None:
    inside: list[str] = []

    def hold(name: str) -> None:
        with cache.lock("kind", "key"):
            inside.append(name)
            assert len(inside) == 1
            inside.remove(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, "abcdefgh"))


def test_a_small_file_is_replaced_whole(cache: Cache) -> None:
    path = cache.root / "memory" / "answer.json"
    cache.write_text(path, "old")
    before = path.stat().st_ino
    cache.write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before
    assert files_in(cache.root) == ["answer.json"]


def test_a_small_file_that_cannot_be_written_leaves_the_old_one(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.root / "answer.json"
    cache.write_text(path, "old")

    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InfrastructureError, match="the disk is full"):
        cache.write_text(path, "new")
    assert path.read_text() == "old"
    assert files_in(cache.root) == ["answer.json"]


def test_the_action_is_named_in_the_error(tmp_path: Path) -> None:
    with (
        pytest.raises(InfrastructureError, match=r"^cannot make a disk in .*: the disk is full"),
        explain_os_errors("make a disk", tmp_path),
    ):
        raise OSError(errno.ENOSPC, "no space")


def test_the_default_folder_is_below_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "kernelfs"
