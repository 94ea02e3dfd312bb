"""The kernels in the cache folder: listed, removed, pruned, and what if the folder cannot be used."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import Kernel, KernelSettings, Resolver

from .conftest import MakeResolver
from .standin import Key, Mirror


@pytest.fixture(scope="module")
def shelf(keys: tuple[Key, Key], stock: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with three kernels, filled once."""
    folder = tmp_path_factory.mktemp("shelf")
    url = Mirror(keys[0], files=stock).write_to(folder / "mirror")
    settings = KernelSettings(Cache(folder / "cache"), debian_mirror=url, debian_keyring=keys[0].keyring)
    resolver = Resolver(settings)
    for candidate in resolver.resolve(["7.2", "6.1", "6.12"]):
        resolver.fetch(candidate)
    return folder / "cache"


@pytest.fixture
def filled(shelf: Path, stocked: Mirror, cache: Cache, make_resolver: MakeResolver) -> Resolver:
    shutil.copytree(shelf / "kernels", cache.root / "kernels")
    return make_resolver()


def ids(kernels: list[Kernel]) -> list[str]:
    return [kernel.id for kernel in kernels]


def test_an_empty_cache_has_no_kernels(make_resolver: MakeResolver) -> None:
    assert make_resolver().cached() == []


def test_kernels_are_listed_the_oldest_first(filled: Resolver) -> None:
    assert ids(filled.cached()) == ["6.1.192", "6.12.117", "7.2.12"]


def test_one_can_be_removed(filled: Resolver) -> None:
    kernel = filled.cached()[0]
    assert filled.remove(kernel) > 0
    assert filled.remove(kernel) == 0
    assert ids(filled.cached()) == ["6.12.117", "7.2.12"]
    assert not kernel.boot_image.parent.exists()


def test_a_removed_one_is_fetched_again(filled: Resolver, stocked: Mirror) -> None:
    (candidate,) = filled.resolve(["6.12"])
    filled.remove(filled.fetch(candidate))
    assert filled.fetch(candidate).boot_image.is_file()
    assert len([path for path in stocked.downloads(".deb") if "6.12.117+deb13" in path]) == 1


def test_one_removed_after_it_was_found_in_the_cache_is_explained(filled: Resolver) -> None:
    (candidate,) = filled.resolve(["6.12.117+deb13-cloud-amd64"])
    filled.prune()
    with pytest.raises(
        InfrastructureError, match=r"6\.12\.117.* is not in the cache \(it was removed meanwhile\)"
    ):
        filled.fetch(candidate)


@pytest.mark.parametrize("by", ["version", "release", "checksum"])
def test_pruning_keeps_what_it_is_told_to(filled: Resolver, by: str) -> None:
    kept = filled.cached()[1]
    assert ids(filled.prune([str(getattr(kept, by))])) == ["6.1.192", "7.2.12"]
    assert filled.cached() == [kept]


def test_pruning_goes_by_the_last_use(filled: Resolver) -> None:
    old, new, _ = filled.cached()
    for kernel in (old, new):
        os.utime(kernel.boot_image.parent, (time.time() - 1000, time.time() - 1000))
    filled.fetch(filled.resolve([new.release])[0])
    assert filled.prune(unused_for=500.0) == [old]


def test_pruning_sweeps_up_after_killed_builds(filled: Resolver, cache: Cache) -> None:
    left, busy = (cache.root / "kernels" / name for name in (".abc.left", ".def.busy"))
    shutil.copytree(filled.cached()[0].boot_image.parent, left, symlinks=True)  # it was all but published
    busy.mkdir()
    with cache.lock("kernels", "def"):
        filled.prune(unused_for=1000.0)
    assert not left.exists()
    assert busy.exists()
    assert len(filled.cached()) == 3


def test_pruning_removes_what_is_no_kernel(filled: Resolver) -> None:
    damaged, good, _ = filled.cached()
    (damaged.boot_image.parent / "kernel.json").write_text("{")
    assert filled.prune(unused_for=1000.0) == []
    assert not damaged.boot_image.parent.exists()
    assert good in filled.cached()
    (candidate,) = filled.resolve(["6.1"])
    assert filled.fetch(candidate).boot_image.is_file()


def test_one_that_cannot_be_read_now_is_kept(filled: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = filled.cached()[0]
    record = kernel.boot_image.parent / "kernel.json"
    read = Path.read_text

    def fail(path: Path, *args: str) -> str:
        if path == record:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fail)
        assert kernel not in filled.prune()
    assert kernel in filled.cached()


def test_a_damaged_entry_is_not_listed_and_is_explained(filled: Resolver) -> None:
    kernel = filled.cached()[0]
    (kernel.boot_image.parent / "kernel.json").write_text("{")
    assert len(filled.cached()) == 2
    (candidate,) = filled.resolve(["6.1"])
    with pytest.raises(InfrastructureError, match="is damaged; remove that folder and run again"):
        filled.fetch(candidate)


def test_a_cache_below_a_file_is_explained(
    stocked: Mirror, make_resolver: MakeResolver, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    resolver = make_resolver(cache=Cache(tmp_path / "file" / "cache"))
    with pytest.raises(InfrastructureError, match=r"cannot write in .*: a part of the path is not a folder"):
        resolver.resolve(["6.1"])


def test_a_full_disk_is_explained_and_leaves_nothing(
    stocked: Mirror, make_resolver: MakeResolver, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = make_resolver()
    (candidate,) = resolver.resolve(["6.1"])

    def full(*args: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pytest_kernelfs.kernels.deb.shutil.copyfileobj", full)
    with pytest.raises(InfrastructureError, match=r"the disk is full; .*--kernelfs-cache DIR"):
        resolver.fetch(candidate)
    assert not any((cache.root / "kernels").iterdir())


def test_a_cache_that_cannot_be_written_still_serves(
    filled: Resolver, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> NoReturn:
        raise InfrastructureError("cannot write: the file system is read-only")

    monkeypatch.setattr(Cache, "write_text", refuse)
    # Root ignores permissions, so this is where a read-only folder would show.
    monkeypatch.setattr("os.utime", lambda *args: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    resolver = make_resolver(index_max_age=0.0)
    assert [resolver.fetch(candidate).id for candidate in resolver.resolve(["6.1", "7.2"])] == [
        "6.1.192",
        "7.2.12",
    ]
