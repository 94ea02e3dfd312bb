"""The cache is kept within its size: the longest unused goes first, what is in hand stays."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import store
from pytest_kernelfs.machines.housekeeping import check_allowed, tidy
from pytest_kernelfs.machines.qemu import template
from pytest_kernelfs.machines.tenant import facts
from pytest_kernelfs.machines.vagrant import box

KIB = 1 << 10
HOUR = 3600.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def used(path: Path, hours_ago: float) -> Path:
    then = time.time() - hours_ago * HOUR
    os.utime(path, (then, then))
    return path


def ramdisk(cache: Cache, key: str, *, hours_ago: float, size: int = 64 * KIB) -> Path:
    folder = cache.path("initramfs", key)
    folder.mkdir(parents=True)
    (folder / "initramfs").write_bytes(b"x" * size)
    return used(folder, hours_ago)


def answers(cache: Cache, name: str, *, hours_ago: float) -> Path:
    path = cache.path("needs", name)
    cache.write_text(path, "{}")
    return used(path, hours_ago)


def test_the_longest_unused_goes_first(cache: Cache) -> None:
    newer, older = ramdisk(cache, "newer", hours_ago=2), ramdisk(cache, "older", hours_ago=3)
    (line,) = tidy(cache, 100 * KIB)
    assert line.startswith(f"removed {older} (")
    assert (newer.exists(), older.exists()) == (True, False)


def test_what_was_just_used_stays(cache: Cache) -> None:
    ramdisk(cache, "key", hours_ago=0)
    answers(cache, "key.json", hours_ago=0)
    assert tidy(cache, 0) == []


def test_what_is_known_of_needs_goes_like_all_else(cache: Cache) -> None:
    older, newer = answers(cache, "a.json", hours_ago=2000), answers(cache, "b.json", hours_ago=1)
    kept = ramdisk(cache, "key", hours_ago=2)
    assert tidy(cache, 64 * KIB + 4 * KIB) == [f"removed {older} (4.0 KiB)"]
    assert kept.exists()
    assert len(tidy(cache, 0)) == 2
    assert not newer.exists()
    assert list((cache.root / "needs").iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["initramfs", template.KIND, store.KIND, "indexes", facts.KIND, box.KIND, "modules", "userland"]
)
def test_what_was_never_finished_goes_unless_somebody_is_at_work_on_it(cache: Cache, kind: str) -> None:
    left, busy = (cache.path(kind, name) for name in (".key.abc", ".other.abc"))
    for folder in (left, busy):
        folder.mkdir(parents=True)
        (folder / "half").touch()
    with cache.lock(kind, "other"):
        assert tidy(cache, 1 << 30) == [f"removed {left}, which was never finished"]
        assert list((cache.root / kind).iterdir()) == [busy]
    assert tidy(cache, 1 << 30) == [f"removed {busy}, which was never finished"]


@pytest.mark.parametrize("kind", [store.KIND, box.KIND])
def test_kernels_and_boxes_stay_however_large_and_old(cache: Cache, kind: str) -> None:
    def build(folder: Path) -> None:
        (folder / "large").write_bytes(b"x" * 64 * KIB)

    used(cache.entry(kind, "key", build), 2000)
    assert tidy(cache, 0) == []


def test_files_that_were_never_finished_go_after_a_while(cache: Cache) -> None:
    file = answers(cache, ".a.json.abc", hours_ago=2)
    young = answers(cache, ".b.json.def", hours_ago=0.1)
    assert tidy(cache, 1 << 30) == [f"removed {file}, which was never finished"]
    assert list((cache.root / "needs").iterdir()) == [young]


def test_a_cache_that_nobody_may_write_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    check_allowed(cache)
    folder = ramdisk(cache, "key", hours_ago=2).parent
    check_allowed(cache)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != folder)
    with pytest.raises(InfrastructureError, match=f"cannot remove anything from {folder}: it cannot be wri"):
        check_allowed(cache)
    # Kernels that somebody else provides are no reason to keep the rest.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != cache.root / "kernels")
    (cache.root / "kernels").mkdir()
    check_allowed(cache)


def test_a_cache_on_a_read_only_file_system_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.root.mkdir(parents=True, exist_ok=True)
    told = os.statvfs(cache.root)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*told[:8], os.ST_RDONLY, told[9])))
    with pytest.raises(InfrastructureError, match=f"from {cache.root}: its file system is read-only"):
        check_allowed(cache)


def test_a_cache_that_nobody_may_look_at_is_told(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(InfrastructureError, match=f"cannot look in {cache.root}: permission is denied"):
        check_allowed(cache)
