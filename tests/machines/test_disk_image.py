"""What a disk image is, and what is said of one that cannot be booted."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.image_agent import COMING_UP
from pytest_kernelfs.guest.image_boot import FAILED
from pytest_kernelfs.machines import qcow2
from pytest_kernelfs.machines.disk_image import DiskImage, arguments, boot_trouble


@pytest.mark.parametrize(
    ("offset", "sign"), [(510, b"\x55\xaa"), (0, b"XFSB"), (0x438, b"\x53\xef"), (0x10040, b"_BHRfS_M")]
)
def test_a_raw_image_is_of_whole_sectors(tmp_path: Path, offset: int, sign: bytes) -> None:
    path = _raw(tmp_path / "image", offset, sign)
    image = DiskImage.read(path)
    assert (image.path, image.format, image.size) == (path, "raw", 70144)


def _raw(path: Path, offset: int = 510, sign: bytes = b"\x55\xaa") -> Path:
    content = bytearray(70000)
    content[offset : offset + len(sign)] = sign
    path.write_bytes(content)
    return path


def test_a_qcow2_image_tells_its_size(tmp_path: Path) -> None:
    qcow2.make_empty(tmp_path / "image", 5 << 30)
    image = DiskImage.read(tmp_path / "image")
    assert (image.format, image.size) == ("qcow2", 5 << 30)


def test_the_identity_changes_with_the_file(tmp_path: Path) -> None:
    path = _raw(tmp_path / "image")
    before = DiskImage.read(path).identity
    assert DiskImage.read(path).identity == before
    os.utime(path, ns=(0, 0))
    assert DiskImage.read(path).identity != before


def test_the_identity_changes_with_what_is_below(tmp_path: Path) -> None:
    (tmp_path / "below").write_bytes(b"x" * 1024)
    _layer(tmp_path / "layer", "below")
    _layer(tmp_path / "top", str(tmp_path / "layer"))
    before = DiskImage.read(tmp_path / "top").identity
    assert str(tmp_path / "below") in before
    os.utime(tmp_path / "below", ns=(0, 0))
    assert DiskImage.read(tmp_path / "top").identity != before


def _layer(path: Path, below: str) -> None:
    """A qcow2 file that names what is below it."""
    qcow2.make_empty(path, 1024)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(below.encode())
        file.seek(8)
        file.write((200).to_bytes(8, "big") + len(below).to_bytes(4, "big"))


def test_a_layer_without_what_is_below_it_is_told(tmp_path: Path) -> None:
    _layer(tmp_path / "top", "gone")
    with pytest.raises(UsageError, match=r"--kernelfs-image: cannot read .*/gone: No such file"):
        DiskImage.read(tmp_path / "top")


def test_what_is_below_may_be_nothing_that_we_can_look_at(tmp_path: Path) -> None:
    _layer(tmp_path / "top", "nbd://host/disk")
    assert DiskImage.read(tmp_path / "top").format == "qcow2"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x1f\x8b", "is compressed with gzip; unpack it, or convert it to qcow2: qemu-img convert"),
        (b"\xfd7zXZ\0", "is compressed with xz"),
        (b"KDMV", "is an image for VMware"),
        (b"", "is empty"),
        (
            b"only text\n",
            "is no disk image: it has no partition table, and is no ext4, xfs or btrfs; give",
        ),
        (b"QFI\xfb\0\0\0\3", "begins like a qcow2 image, and ends after 8 bytes"),
        (b"QFI\xfb" + struct.pack(">IQIIQ", 3, 32, 5, 16, 1 << 20) + b"image", "lies on top of itself"),
    ],
)
def test_what_cannot_be_booted_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(UsageError, match=told):
        DiskImage.read(tmp_path / "image")


@pytest.mark.parametrize(("name", "told"), [("none", "No such file"), ("", "Is a directory")])
def test_a_file_that_is_none_is_told(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"--kernelfs-image: cannot read .*: {told}"):
        DiskImage.read(tmp_path / name)


def test_the_kernel_is_told_which_disk_and_which_partition() -> None:
    assert arguments() == "kernelfs.root=serial:kernelfs-image"
    assert arguments("LABEL=root") == "kernelfs.root=serial:kernelfs-image kernelfs.partition=LABEL=root"


@pytest.mark.parametrize(
    ("console", "told"),
    [
        ("", ""),
        ("[ 1.0] Linux version\n", ""),
        (f"a\nkernelfs: {FAILED}no disk\nb\n", f"{FAILED}no disk"),
        (f"kernelfs: {COMING_UP}x\nkernelfs: {COMING_UP}y\n", f"{COMING_UP}y"),
    ],
)
def test_the_console_tells_what_is_wrong(console: str, told: str) -> None:
    assert boot_trouble(console) == told


SIZES = [512, 8 << 30, (512 << 20) * 8192 + 512, 2 << 40]


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is to judge the files")
@pytest.mark.parametrize("size", SIZES)
def test_an_empty_file_is_whole(tmp_path: Path, size: int) -> None:
    qcow2.make_empty(tmp_path / "file", size)
    checked = subprocess.run(
        ["qemu-img", "check", str(tmp_path / "file")], capture_output=True, text=True, check=False
    )
    assert "No errors were found" in checked.stdout, checked.stderr
    assert qcow2.size_of((tmp_path / "file").read_bytes()) == size
    assert qcow2.backing_of((tmp_path / "file").read_bytes()) == ""
