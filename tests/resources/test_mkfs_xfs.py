"""XFS is made with the features that the kernel under test can mount."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_kernelfs.kernels import KernelVersion
from pytest_kernelfs.resources.mkfs import KINDS, parse_version
from pytest_kernelfs.resources.mkfs_xfs import mkfs_flags
from pytest_kernelfs.tools import need

KERNELS = ["5.10", "6.1", "6.12", "7.2"]


def flags(mkfs: tuple[int, int], kernel: str) -> str:
    return " ".join(mkfs_flags(mkfs, KernelVersion.parse(kernel)))


@pytest.mark.parametrize(
    ("kernel", "mkfs", "expected"),
    [
        ("5.10.262", (6, 1), "-m rmapbt=0,inobtcount=0,bigtime=0 -i nrext64=0 -n ftype=1"),
        (
            "5.10.262",
            (6, 13),
            "-m rmapbt=0,inobtcount=0,bigtime=0,metadir=0 -i nrext64=0,exchange=0 -n parent=0,ftype=1",
        ),
        ("6.1.176", (6, 1), "-m rmapbt=0 -i nrext64=0 -n ftype=1"),
        ("6.1.176", (6, 13), "-m rmapbt=0,metadir=0 -i nrext64=0,exchange=0 -n parent=0,ftype=1"),
        ("6.12.95", (6, 1), "-n ftype=1"),
        ("6.12.95", (6, 13), "-m metadir=0 -i exchange=0 -n parent=0,ftype=1"),
        ("7.2.12", (6, 1), "-n ftype=1"),
        ("7.2.12", (6, 13), "-n ftype=1"),
        ("4.14.60", (4, 9), "-m reflink=0,rmapbt=0 -n ftype=1"),
        ("4.2", (3, 2), "-n ftype=1"),
    ],
)
def test_what_a_kernel_cannot_mount_is_switched_off(
    kernel: str, mkfs: tuple[int, int], expected: str
) -> None:
    assert flags(mkfs, kernel) == expected


def test_each_flag_is_given_once() -> None:
    words = flags((6, 13), "4.2").split()
    assert sorted(words[::2]) == ["-i", "-m", "-n"]


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("mkfs.xfs version 6.1.0\n", (6, 1)),
        ("mkfs.xfs version 6.13.0-rc1\n", (6, 13)),
        ("mkfs.xfs version 10.2\n", (10, 2)),
        ("busybox\n", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_version_of_mkfs_is_read(printed: str, version: tuple[int, int]) -> None:
    assert parse_version(KINDS["xfs"], printed) == version


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_hosts_own_mkfs_takes_the_flags(kernel: str, tmp_path: Path) -> None:
    mkfs = str(need("mkfs.xfs"))
    told = subprocess.run([mkfs, "-V"], capture_output=True, text=True, check=True).stdout
    image = tmp_path / "image"
    image.touch()
    command = [mkfs, "-q", "-f", *flags(parse_version(KINDS["xfs"], told), kernel).split()]
    done = subprocess.run(
        [*command, "-d", f"file,name={image},size=512m"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with image.open("rb") as file:
        assert file.read(4) == b"XFSB"
