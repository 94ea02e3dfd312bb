"""Templates: when one serves, who uses it, and when there is no room for one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu import template
from pytest_kernelfs.machines.qemu.command import KERNEL_HEAD, Launch
from pytest_kernelfs.machines.qemu.template import (
    TemplateStore,
    Unusable,
    identity,
    in_use,
    is_in_use,
    template_key,
)
from pytest_kernelfs.shortage import Shortage


@pytest.fixture
def store(tmp_path: Path) -> TemplateStore:
    return TemplateStore(Cache(tmp_path / "cache"))


def build(folder: Path) -> None:
    (folder / template.MEMORY).write_bytes(b"memory")
    (folder / template.STATE).write_bytes(b"state")
    image = folder / "vmlinuz"
    image.write_bytes(bzimage(setup_sectors=4))
    template.finish(folder, image, {"kernel": "6.1"})


def bzimage(setup_sectors: int) -> bytes:
    """A kernel whose every sector is filled with its number, but for the byte that tells their count."""
    sectors = bytearray(b"".join(bytes([number]) * 512 for number in range(100)))
    sectors[0x1F1] = setup_sectors
    return bytes(sectors)


def test_the_same_machine_has_the_same_template(launch: Launch) -> None:
    assert template_key(launch) == template_key(replace(launch))


def test_all_that_a_saved_state_depends_on_makes_another_template(launch: Launch) -> None:
    others = [
        replace(launch, spec=MachineSpec(2 << 30, 2)),
        replace(launch, spec=MachineSpec(1 << 30, 1)),
        replace(launch, accel="kvm"),
        replace(launch, qemu=replace(launch.qemu, fingerprint="another build")),
        replace(launch, kernel=replace(launch.kernel, checksum="b" * 64)),
        replace(launch, initramfs=Path("/cache/other/initramfs")),
    ]
    keys = {template_key(other) for other in [launch, *others]}
    assert len(keys) == len(others) + 1


def test_where_files_lie_makes_no_other_template(launch: Launch) -> None:
    elsewhere = replace(
        launch,
        kernel=replace(launch.kernel, image=Path("/moved/vmlinuz")),
        initramfs=Path("/moved/key/initramfs"),
        scratch=Path("/moved/scratch"),
    )
    assert template_key(elsewhere) == template_key(launch)


def test_a_template_is_built_once(store: TemplateStore) -> None:
    built: list[Path] = []

    def note(folder: Path) -> None:
        built.append(folder)
        build(folder)

    assert store.get("key", note) == store.get("key", note)
    assert len(built) == 1


def test_a_discarded_template_is_built_anew(store: TemplateStore) -> None:
    folder = store.get("key", build)
    (folder / template.MEMORY).write_bytes(b"damaged")
    store.discard("key", identity(folder))
    assert not folder.exists()
    assert (store.get("key", build) / template.MEMORY).read_bytes() == b"memory"


def test_discarding_twice_is_no_error_and_leaves_nothing(store: TemplateStore) -> None:
    folder = store.get("key", build)
    opened = identity(folder)
    store.discard("key", opened)
    store.discard("key", opened)
    assert list(folder.parent.iterdir()) == []


def test_a_template_that_another_has_made_anew_is_not_discarded(store: TemplateStore) -> None:
    folder = store.get("key", build)
    (folder / "template.json").touch()
    os.utime(folder / "template.json", (1, 1))
    opened = identity(folder)
    store.discard("key", opened)
    assert store.get("key", build) == folder
    (folder / "template.json").touch()
    store.discard("key", opened)
    assert folder.exists()
    os.utime(folder)  # it was used
    store.discard("key", identity(folder))
    assert not folder.exists()


def test_a_template_is_in_use_as_long_as_anybody_holds_it(store: TemplateStore) -> None:
    folder = store.get("key", build)
    assert not is_in_use(folder)
    with in_use(folder):
        with in_use(folder):
            assert is_in_use(folder)
        assert is_in_use(folder)
    assert not is_in_use(folder)


def test_a_template_that_is_gone_cannot_be_used(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path / "gone")
    with pytest.raises(Unusable, match="gone is not complete"), in_use(tmp_path / "gone"):
        pass


def test_a_template_is_not_made_without_room(store: TemplateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10 << 30, 9 << 30, 9 << 20)
    )
    with pytest.raises(InfrastructureError, match=r"no room for a template in .*: 9 MiB are free"):
        store.check_room("key")


def test_a_template_that_is_there_needs_no_room(
    store: TemplateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.get("key", build)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0))
    store.check_room("key")


def test_room_is_looked_for_before_the_cache_is_made(store: TemplateStore, tmp_path: Path) -> None:
    store.check_room("key")
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_there_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "state"
    path.parent.mkdir()
    save = ["sh", "-c", template.save_to(path).removeprefix("exec:")]
    with subprocess.Popen(save, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        process.stdin.write(b"the ")
        part = path.with_name("state.part")
        while not part.exists() or part.read_bytes() != b"the ":
            assert process.poll() is None
        assert not path.exists()
        process.stdin.write(b"state")
    assert process.returncode == 0
    load = ["sh", "-c", template.load_from(path).removeprefix("exec:")]
    assert subprocess.run(load, stdout=subprocess.PIPE, check=True).stdout == b"the state"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("told", "kept"), [(4, 6), (27, 29), (0, 6)])
def test_of_a_kernel_its_real_mode_part_is_kept_and_one_sector(tmp_path: Path, told: int, kept: int) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(setup_sectors=told))
    assert template.kernel_head(image) == image.read_bytes()[: kept * 512]


def test_a_finished_template_holds_the_head_of_its_kernel(store: TemplateStore) -> None:
    folder = store.get("key", build)
    assert (folder / KERNEL_HEAD).stat().st_size == 6 * 512


def test_a_finished_template_is_whole(store: TemplateStore) -> None:
    template.check(store.get("key", build))


@pytest.mark.parametrize("name", [template.STATE, template.MEMORY, KERNEL_HEAD])
@pytest.mark.parametrize("length", [0, 3])
def test_a_template_with_a_file_cut_short_is_refused(store: TemplateStore, name: str, length: int) -> None:
    folder = store.get("key", build)
    os.truncate(folder / name, length)
    with pytest.raises(Unusable, match=f"the file {name} of the template .* has {length} bytes"):
        template.check(folder)


@pytest.mark.parametrize("name", [template.STATE, KERNEL_HEAD, "template.json"])
def test_a_template_that_lacks_a_file_is_refused(store: TemplateStore, name: str) -> None:
    folder = store.get("key", build)
    (folder / name).unlink()
    with pytest.raises(Unusable, match=rf"is not complete \(.*{name}"):
        template.check(folder)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_host_that_opens_no_file_says_nothing_of_a_template(
    store: TemplateStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    folder = store.get("key", build)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with (
            pytest.raises(Shortage, match=f"^cannot read the template {folder}: .* run fewer tests"),
            in_use(folder),
        ):
            pass
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(Shortage, match=f"^cannot read the template {folder}: "):
        template.check(folder)


def test_a_template_is_on_disk_before_it_is_published(
    store: TemplateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda handle: synced.add(os.fstat(handle).st_ino))
    folder = store.get("key", build)
    assert synced >= {path.stat().st_ino for path in (folder, *folder.iterdir())}
