"""What a disk keeps, and which disks cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu import power
from pytest_kernelfs.machines.qemu.disks import Plug
from pytest_kernelfs.machines.qemu.write_log import SECTOR
from tests.machines.qemu.test_write_log import FLUSHED, make_log, text_at, write

SIZE = 1 << 20
PLAIN, RECORDED = DiskSpec(SIZE), DiskSpec(SIZE, power_cut=True)


@pytest.mark.parametrize(
    ("spec", "keep"),
    [
        (RECORDED, "flushed"),
        (RECORDED, "written"),
        (PLAIN, "written"),
        (DiskSpec(SIZE, cache="writethrough"), "flushed"),
    ],
)
def test_disks_that_can_tell(spec: DiskSpec, keep: str) -> None:
    power.check([Plug("kfs1", 0, spec)], keep)


def test_a_write_cache_without_a_record_cannot() -> None:
    with pytest.raises(UsageError, match=r"kfs2 .*has a write cache.*disk_factory\(power_cut=True\)"):
        power.check([Plug("kfs1", 0, RECORDED), Plug("kfs2", 1, PLAIN)], "flushed")


@pytest.mark.parametrize("cache", ["writeback", "writethrough"])
def test_a_checkpoints_disk_without_a_record_cannot(cache: str, tmp_path: Path) -> None:
    plug = Plug("kfs1", 0, DiskSpec(SIZE, cache=cache), tmp_path / "base", tmp_path / "below")
    with pytest.raises(UsageError, match="comes from a checkpoint"):
        power.check([plug], "written")


def test_the_image_itself_is_what_was_written(tmp_path: Path) -> None:
    plug = Plug("kfs1", 0, RECORDED)
    assert power.content(plug, tmp_path, "written") == tmp_path / "kfs1.raw"


def test_what_was_flushed_is_made_from_nothing(tmp_path: Path) -> None:
    plug = Plug("kfs1", 0, RECORDED)
    (tmp_path / "kfs1.raw").write_bytes(b"\xff" * SIZE)
    make_log(tmp_path, [write(1, b"one"), FLUSHED, write(2, b"two")])
    kept = power.content(plug, tmp_path, "flushed")
    assert kept.stat().st_size == SIZE
    assert [text_at(kept, sector) for sector in (0, 1, 2)] == [b"", b"one", b""]


@pytest.mark.parametrize(("keep", "second"), [("flushed", b""), ("written", b"two")])
def test_what_was_below_is_added_to(tmp_path: Path, keep: str, second: bytes) -> None:
    below = tmp_path / "kfs1.below"
    below.write_bytes(b"below".ljust(SIZE, b"\0"))
    (tmp_path / "kfs1.qcow2").touch()
    make_log(tmp_path, [write(1, b"one"), FLUSHED, write(2, b"two")])
    kept = power.content(Plug("kfs1", 0, RECORDED, below=below), tmp_path, keep)
    assert [text_at(kept, sector) for sector in (0, 1, 2)] == [b"below", b"one", second]
    assert not below.exists()


def test_what_belongs_to_a_checkpoint_is_copied(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "kfs1.raw").write_bytes(b"below".ljust(SIZE, b"\0"))
    (tmp_path / "kfs1.qcow2").touch()
    make_log(tmp_path, [write(1, b"one"), FLUSHED])
    plug = Plug("kfs1", 0, RECORDED, saved / "kfs1.qcow2", saved / "kfs1.raw")
    kept = power.content(plug, tmp_path, "flushed")
    assert text_at(kept, 1) == b"one"
    assert (saved / "kfs1.raw").read_bytes()[SECTOR:] == bytes(SIZE - SECTOR)
