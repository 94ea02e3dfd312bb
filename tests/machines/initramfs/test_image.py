"""The initial ramdisk of a kernel: userland, then its modules."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels import Kernel, KernelVersion
from pytest_kernelfs.machines.initramfs import image
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter

from . import newc

KERNEL = Kernel(KernelVersion(6, 1), "6.1.0", "test", "a" * 64, Path("/boot/vmlinuz"))


def part(folder: Path, key: str, name: str) -> Path:
    """An archive with one empty file, as if from the cache."""
    path = folder / key / "archive.cpio"
    path.parent.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    writer = CpioWriter(buffer)
    writer.file(name, b"")
    writer.finish()
    path.write_bytes(buffer.getvalue())
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    userland, modules = part(tmp_path, "key1", "init"), part(tmp_path, "key2", "xfs.ko")
    monkeypatch.setattr(image, "build_userland", lambda cache: userland)
    monkeypatch.setattr(image, "build_modules", lambda cache, kernel: modules)
    return Cache(tmp_path / "cache")


def test_modules_follow_the_userland(cache: Cache) -> None:
    data = image.build_initramfs(cache, KERNEL).read_bytes()
    first = newc.read(data)
    second = newc.read(data, first.end)
    assert (first.names, second.names, second.end) == (["init"], ["xfs.ko"], len(data))


def test_a_kernel_without_modules_has_the_userland_alone(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image, "build_modules", lambda cache, kernel: None)
    data = image.build_initramfs(cache, KERNEL).read_bytes()
    assert newc.read(data).end == len(data)


def test_other_modules_make_another_image(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = image.build_initramfs(cache, KERNEL)
    other = part(tmp_path, "key3", "btrfs.ko")
    monkeypatch.setattr(image, "build_modules", lambda cache, kernel: other)
    assert image.build_initramfs(cache, KERNEL) != before
    assert b"xfs.ko" in before.read_bytes()
