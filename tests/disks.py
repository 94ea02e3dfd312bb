"""Disk images for tests: partition tables without a program that writes them, and systems that are tiny."""

from __future__ import annotations

import shutil
import struct
import subprocess
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.tools import find

SECTOR = 512
MIB = 1 << 20
ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_SOME = uuid.UUID(int=1)


@dataclass(frozen=True)
class Partition:
    """A partition to write: its content, and what the table says of it."""

    content: Path
    type: uuid.UUID = LINUX
    label: str = ""
    uuid: uuid.UUID = _SOME

    @property
    def sectors(self) -> int:
        return -(-self.content.stat().st_size // SECTOR)


def write_gpt(path: Path, partitions: Sequence[Partition]) -> Path:
    """A disk with a GUID partition table, in which partitions begin at 1 MiB, one behind the other."""
    starts = _starts(partitions)
    end = starts[-1] + partitions[-1].sectors
    table = b""
    for partition, start in zip(partitions, starts, strict=True):
        name = partition.label.encode("utf-16-le").ljust(72, b"\0")
        ids = partition.type.bytes_le + partition.uuid.bytes_le
        table += ids + struct.pack("<QQQ", start, start + partition.sectors - 1, 0) + name
    table = table.ljust(128 * 128, b"\0")
    last = end + 33
    _fill(path, (last + 1) * SECTOR, partitions, starts)
    with path.open("r+b") as file:
        file.seek(446)  # a protective entry that covers the disk, for those who know no GUIDs
        file.write(struct.pack("<4sB3sII", b"\0\0\2\0", 0xEE, b"\xff" * 3, 1, last))
        file.seek(510)
        file.write(b"\x55\xaa")
        file.write(_gpt_header(1, last, 2, end, table))
        file.seek(2 * SECTOR)
        file.write(table)
        file.seek((last - 32) * SECTOR)
        file.write(table)
        file.write(_gpt_header(last, 1, last - 32, end, table))
    return path


def _gpt_header(here: int, other: int, table_at: int, end: int, table: bytes) -> bytes:
    def pack(crc: int) -> bytes:
        fields = (b"EFI PART", 0x10000, 92, crc, 0, here, other, 34, end - 1)
        rest = struct.pack("<QIII", table_at, 128, 128, zlib.crc32(table))
        return struct.pack("<8sIIIIQQQQ", *fields) + uuid.UUID(int=7).bytes_le + rest

    return pack(zlib.crc32(pack(0))).ljust(SECTOR, b"\0")


def write_mbr(path: Path, partitions: Sequence[Partition]) -> Path:
    """A disk with a table in its boot record, of at most four partitions."""
    starts = _starts(partitions)
    _fill(path, (starts[-1] + partitions[-1].sectors) * SECTOR, partitions, starts)
    with path.open("r+b") as file:
        file.seek(446)
        for partition, start in zip(partitions, starts, strict=True):
            file.write(struct.pack("<4sB3sII", b"", 0x83, b"", start, partition.sectors))
        file.seek(510)
        file.write(b"\x55\xaa")
    return path


def _starts(partitions: Sequence[Partition]) -> list[int]:
    starts = [MIB // SECTOR]
    for partition in partitions[:-1]:
        starts.append(-(-(starts[-1] + partition.sectors) // 2048) * 2048)
    return starts


def _fill(path: Path, size: int, partitions: Sequence[Partition], starts: Sequence[int]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for partition, start in zip(partitions, starts, strict=True):
            file.seek(start * SECTOR)
            with partition.content.open("rb") as content:
                while chunk := content.read(MIB):
                    if chunk.strip(b"\0"):
                        file.write(chunk)
                    else:
                        file.seek(len(chunk), 1)


def empty_file(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def make_filesystem(path: Path, kind: str, size: int, *options: str) -> Path:
    """A file with an empty file system of that kind, ext4, xfs, btrfs or swap."""
    command = {"swap": "mkswap"}.get(kind, f"mkfs.{kind}")
    quiet = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"], "btrfs": ["-q", "-f"], "swap": []}[kind]
    program = find(command)
    assert program is not None, f"{command} is missing: run 'kernelfs setup --for-tests'"
    path.touch(mode=0o600)
    subprocess.run(
        [str(program), *quiet, *options, str(empty_file(path, size))], check=True, capture_output=True
    )
    return path


_APPLETS = "sh mount sleep cat echo uname touch test ls poweroff sync mkdir".split()  # noqa: SIM905


def tiny_system(folder: Path, init: str = "while :; do sleep 1; done\n") -> Path:
    """A system of busybox alone; its init is a shell script, or missing if that is empty."""
    for name in ("bin", "sbin", "etc", "proc", "sys", "dev", "run", "mnt", "root"):
        (folder / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "the package busybox-static is missing"
    shutil.copy(busybox, folder / "bin/busybox")
    for name in _APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    if init:
        (folder / "sbin/init").write_text(f"#!/bin/sh\n{init}")
        (folder / "sbin/init").chmod(0o755)
    return folder


def tiny_root(path: Path, init: str = "while :; do sleep 1; done\n", size: int = 24 * MIB) -> Path:
    """A file with an ext4 that holds a tiny system."""
    folder = path.with_name(f"{path.name}.d")
    tiny_system(folder, init)
    make_filesystem(path, "ext4", size, "-d", str(folder))
    shutil.rmtree(folder)
    return path
