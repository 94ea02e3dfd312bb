"""The modules archive: chosen modules with all they need, decompressed, listed for modprobe."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import Kernel, KernelVersion
from pytest_kernelfs.machines.initramfs import modules
from pytest_kernelfs.machines.initramfs.modules import (
    ModuleIndex,
    build_modules,
    module_name,
    plain_name,
    read_module,
)

from . import newc

RELEASE = "6.1.0-50-cloud-amd64"
BASE = f"usr/lib/modules/{RELEASE}"
DEP = """\
kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.gz kernel/crypto/crc32c-generic.ko
kernel/lib/libcrc32c.ko.gz: kernel/crypto/crc32c-generic.ko
kernel/crypto/crc32c-generic.ko:
kernel/drivers/block/loop.ko:
kernel/drivers/gpu/huge.ko:
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A modules folder with one module of each compression."""
    folder = tmp_path / "lib/modules" / RELEASE
    for relative, content in {
        "kernel/fs/xfs/xfs.ko.xz": lzma.compress(b"xfs"),
        "kernel/lib/libcrc32c.ko.gz": gzip.compress(b"libcrc32c"),
        "kernel/crypto/crc32c-generic.ko": b"crc32c",
        "kernel/drivers/block/loop.ko": b"loop",
        "kernel/drivers/gpu/huge.ko": b"huge",
        "modules.dep": DEP.encode(),
        "modules.order": b"kernel/fs/xfs/xfs.ko\n",
        "modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
    }.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def kernel(folder: Path | None, checksum: str = "a" * 64) -> Kernel:
    version = KernelVersion.parse("6.1.176")
    return Kernel(version, RELEASE, "test", checksum, Path("/boot/vmlinuz"), folder)


def build(cache: Path, folder: Path) -> newc.Archive:
    path = build_modules(Cache(cache), kernel(folder))
    assert path is not None
    return newc.read(path.read_bytes())


def test_dependencies_come_before_what_needs_them(folder: Path) -> None:
    assert ModuleIndex(folder).closure(["loop", "xfs"]) == [
        "kernel/drivers/block/loop.ko",
        "kernel/crypto/crc32c-generic.ko",
        "kernel/lib/libcrc32c.ko.gz",
        "kernel/fs/xfs/xfs.ko.xz",
    ]


def test_names_that_the_kernel_lacks_are_passed_over(folder: Path) -> None:
    assert ModuleIndex(folder).closure(["btrfs", "loop"]) == ["kernel/drivers/block/loop.ko"]


def test_what_a_module_asks_for_while_it_runs_is_found_by_name_and_by_alias(folder: Path) -> None:
    (folder / "modules.softdep").write_text(
        "# Soft dependencies\nsoftdep xfs pre: loop crc32 post: nowhere\n"
    )
    (folder / "modules.alias").write_text("alias crc32 huge\nalias crypto-crc32 xfs\nalias fs-xfs xfs\n")
    index = ModuleIndex(folder)
    assert index.softly_needed(["xfs"]) == ["loop", "huge"]
    assert index.softly_needed(["loop"]) == []


@pytest.mark.parametrize("name", ["crc32c-generic", "crc32c_generic"])
def test_dash_and_underscore_are_the_same_in_names(folder: Path, name: str) -> None:
    index = ModuleIndex(folder)
    assert index.has(name)
    assert index.closure([name]) == ["kernel/crypto/crc32c-generic.ko"]


def test_a_module_that_is_not_there_is_not_had(folder: Path) -> None:
    assert not ModuleIndex(folder).has("btrfs")


def test_a_folder_without_its_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"has no modules\.dep; run 'depmod -b' on it"):
        ModuleIndex(tmp_path)


@pytest.mark.parametrize(
    ("relative", "name", "plain"),
    [
        ("kernel/fs/xfs/xfs.ko", "xfs", "kernel/fs/xfs/xfs.ko"),
        ("kernel/fs/xfs/xfs.ko.xz", "xfs", "kernel/fs/xfs/xfs.ko"),
        ("extra/dm-log-writes.ko.zst", "dm_log_writes", "extra/dm-log-writes.ko"),
        ("a.b.ko.gz", "a.b", "a.b.ko"),
    ],
)
def test_a_module_has_a_name_without_compression(relative: str, name: str, plain: str) -> None:
    assert (module_name(relative), plain_name(relative)) == (name, plain)


@pytest.mark.parametrize(
    ("relative", "content"),
    [
        ("kernel/fs/xfs/xfs.ko.xz", b"xfs"),
        ("kernel/lib/libcrc32c.ko.gz", b"libcrc32c"),
        ("kernel/drivers/block/loop.ko", b"loop"),
    ],
)
def test_modules_are_decompressed(folder: Path, relative: str, content: bytes) -> None:
    assert read_module(folder / relative) == content


def fake_zstd(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    program = folder / "zstd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(modules, "need", lambda command: folder / command)


def test_zstd_is_left_to_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_zstd(monkeypatch, tmp_path, 'echo plain "$@"')
    path = tmp_path / "xfs.ko.zst"
    path.touch()
    assert read_module(path) == f"plain -dcq {path}\n".encode()


def test_a_module_that_cannot_be_decompressed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_zstd(monkeypatch, tmp_path, "echo unexpected end of file >&2; exit 1")
    path = tmp_path / "xfs.ko.zst"
    path.touch()
    with pytest.raises(InfrastructureError, match=r"xfs\.ko\.zst: unexpected end of file"):
        read_module(path)


@pytest.mark.parametrize("suffix", ["xz", "gz"])
def test_a_damaged_module_is_told_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"xfs.ko.{suffix}"
    path.write_bytes(b"not compressed at all")
    with pytest.raises(InfrastructureError, match=r"cannot decompress the module .*xfs\.ko"):
        read_module(path)


def test_the_archive_holds_chosen_modules_and_their_dependencies_only(folder: Path, tmp_path: Path) -> None:
    read = build(tmp_path / "cache", folder)
    contents = {m.name: m.content for m in read.members if m.name.endswith(".ko")}
    assert contents == {
        f"{BASE}/kernel/fs/xfs/xfs.ko": b"xfs",
        f"{BASE}/kernel/lib/libcrc32c.ko": b"libcrc32c",
        f"{BASE}/kernel/crypto/crc32c-generic.ko": b"crc32c",
        f"{BASE}/kernel/drivers/block/loop.ko": b"loop",
    }


def test_the_archive_holds_what_they_ask_for_while_they_run(folder: Path, tmp_path: Path) -> None:
    (folder / "modules.softdep").write_text("softdep xfs pre: huge\n")
    assert f"{BASE}/kernel/drivers/gpu/huge.ko" in build(tmp_path / "cache", folder).names


def test_the_archive_has_tables_for_modprobe(folder: Path, tmp_path: Path) -> None:
    read = build(tmp_path / "cache", folder)
    assert {f"{BASE}/modules.dep.bin", f"{BASE}/modules.builtin"} <= set(read.names)
    assert b"kernel/fs/xfs/xfs.ko:" in read[f"{BASE}/modules.dep"].content


def test_the_guest_is_told_what_to_load_at_boot(folder: Path, tmp_path: Path) -> None:
    read = build(tmp_path / "cache", folder)
    assert read["etc/kernelfs/modules"].content.split() == [b"loop", b"xfs"]


def test_nothing_but_the_archive_is_kept(folder: Path, tmp_path: Path) -> None:
    build(tmp_path / "cache", folder)
    files = [path.name for path in (tmp_path / "cache/modules").rglob("*") if path.is_file()]
    assert files == ["modules.cpio"]


def test_two_builds_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    archives = [build_modules(Cache(tmp_path / name), kernel(folder)) for name in ("one", "two")]
    first, second = (path.read_bytes() for path in archives if path is not None)
    assert first == second


def test_another_kernel_has_another_archive(folder: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    first = build_modules(cache, kernel(folder))
    assert build_modules(cache, kernel(folder)) == first
    assert build_modules(cache, kernel(folder, "b" * 64)) != first


def test_a_kernel_without_modules_has_no_archive(tmp_path: Path) -> None:
    assert build_modules(Cache(tmp_path), kernel(None)) is None


def test_a_failing_depmod_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "depmod"
    program.write_text("#!/bin/sh\necho bad table >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(modules, "need", lambda command: tmp_path / command)
    with pytest.raises(InfrastructureError, match=f"depmod failed for the modules of {RELEASE}: bad table"):
        build(tmp_path / "cache", folder)
