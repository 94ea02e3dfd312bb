"""Finds the root of a system on a disk: which partition, and which file system is on it.

Nothing but the disk itself is read: signatures of file systems, and the names that a GUID partition table
gives to its partitions, which old kernels do not tell.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from pytest_kernelfs.guest.patience import Patience

MOUNTABLE = ("ext4", "xfs", "btrfs")
_POLL_S = 0.02
_SECTOR = 512
# The specification of discoverable partitions: the root of an x86-64 system.
_ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
_GPT_HEADER = struct.Struct("<8s64xQII")
_GPT_ENTRY = struct.Struct("<16s16s24x72s")
_MOST_ENTRIES = 256

# Where else something is known by: (offset, signature, what it is), for messages.
_OTHERS = (
    (0, b"LUKS\xba\xbe", "LUKS"),
    (512, b"LABELONE", "LVM"),
    (4086, b"SWAPSPACE2", "swap"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (0, b"hsqs", "squashfs"),
    (32769, b"CD001", "iso9660"),
    (82, b"FAT32", "vfat"),
    (54, b"FAT1", "vfat"),
    (3, b"NTFS", "ntfs"),
)


class RootNotFound(Exception):
    """What was looked for, and what there is instead."""


class Content(NamedTuple):
    """What a device holds: ``kind`` is a file system, another known format, or "" if it is unknown."""

    kind: str
    label: str = ""
    uuid: str = ""


class Root(NamedTuple):
    device: str
    kind: str


class _Part(NamedTuple):
    """A partition, or a whole disk without any. ``size`` is in bytes; the rest is empty without a GPT."""

    name: str
    number: int
    size: int
    content: Content
    type: str = ""
    label: str = ""
    uuid: str = ""

    def __str__(self) -> str:
        named = f' "{self.content.label}"' if self.content.label else ""
        return f"{self.name} ({self.size >> 20} MiB, {self.content.kind or 'unknown'}{named})"

    def is_called(self, wanted: str) -> bool:
        key, _, value = wanted.rpartition("=")
        called = {
            "": str(self.number),
            "LABEL": self.content.label,
            "UUID": self.content.uuid,
            "PARTLABEL": self.label,
            "PARTUUID": self.uuid,
        }
        text = called.get(key.upper())
        return text == (value.lower() if key.upper().endswith("UUID") else value)


def identify(path: str) -> Content:
    """What a block device, or a file, holds."""
    with open(path, "rb") as file:
        data = file.read(0x12000)
    if data[1080:1082] == b"\x53\xef":
        return Content("ext4", _text(data[1144:1160]), _uuid(data[1128:1144]))
    if data[:4] == b"XFSB":
        return Content("xfs", _text(data[108:120]), _uuid(data[32:48]))
    if data[0x10040:0x10048] == b"_BHRfS_M":
        return Content("btrfs", _text(data[0x1012B:0x1022B]), _uuid(data[0x10020:0x10030]))
    for offset, signature, kind in _OTHERS:
        if data[offset : offset + len(signature)] == signature:
            return Content(kind)
    return Content("")


def find(
    where: str,
    partition: str = "",
    patience: float = 15.0,
    block: str = "/sys/class/block",
    dev: str = "/dev",
) -> Root:
    """The device with the root, and the file system on it.

    ``where`` is a device (/dev/vda, /dev/vda1) or a disk's serial number (serial:NAME), waited for
    ``patience`` seconds. ``partition`` is a number, or one of LABEL, UUID, PARTLABEL and PARTUUID with "="
    and a value; without it a partition counts that is marked as the root of an x86-64 system, else the
    largest one with a file system that can be a root.

    Raises: RootNotFound.
    """
    name = _wait_for(where, patience, block)
    parts = _parts(name, block, dev)
    if partition:
        named = [part for part in parts if part.is_called(partition)]
        if not named:
            raise RootNotFound(f"{where} has no partition {partition!r}; it has {_list(parts)}")
        chosen = named[0]
        if chosen.content.kind not in MOUNTABLE:
            raise RootNotFound(f"the partition {partition!r} is {chosen}, and no {_or(MOUNTABLE)}")
    else:
        possible = [part for part in parts if part.content.kind in MOUNTABLE]
        if not possible:
            raise RootNotFound(
                f"no file system on {where} can be a root, which is {_or(MOUNTABLE)}; there is {_list(parts)}"
            )
        marked = [part for part in possible if part.type == _ROOT_TYPE]
        chosen = max(marked or possible, key=lambda part: part.size)
    return Root(f"{dev}/{chosen.name}", chosen.content.kind)


def _or(kinds: tuple[str, ...]) -> str:
    return f"{', '.join(kinds[:-1])} or {kinds[-1]}"


def _list(parts: list[_Part]) -> str:
    return ", ".join(map(str, parts))


def _wait_for(where: str, patience: float, block: str) -> str:
    """The name of the device that ``where`` means, once it is there."""
    waiting = Patience(patience, _POLL_S)
    while True:
        name = _named(where, block)
        if name:
            return name
        if not waiting.wait():
            there = [each for each in sorted(os.listdir(block)) if not each.startswith(("loop", "ram"))]
            raise RootNotFound(
                f"there is no disk {where} after {patience:g} s; there is {', '.join(there) or 'none at all'}"
            )


def _named(where: str, block: str) -> str:
    kind, _, serial = where.partition(":")
    if kind != "serial":
        name = where.rpartition("/")[2]
        return name if name and os.path.exists(f"{block}/{name}") else ""
    for name in os.listdir(block):
        if _read(f"{block}/{name}/serial") == serial:
            return name
    return ""


def _parts(name: str, block: str, dev: str) -> list[_Part]:
    """The partitions of a disk; the disk itself if it holds a file system, or has none."""
    content = identify(f"{dev}/{name}")
    folder = f"{block}/{name}"
    below = [each for each in os.listdir(folder) if os.path.exists(f"{folder}/{each}/partition")]
    if content.kind in MOUNTABLE or not below:
        return [_Part(name, 0, _size(folder), content)]
    entries = _gpt(f"{dev}/{name}", int(_read(f"{folder}/queue/logical_block_size") or _SECTOR))
    found = []
    for each in below:
        number = int(_read(f"{folder}/{each}/partition"))
        size = _size(f"{folder}/{each}")
        found.append(_Part(each, number, size, identify(f"{dev}/{each}"), *entries.get(number, ())))
    return sorted(found, key=lambda part: part.number)


def _size(folder: str) -> int:
    return int(_read(f"{folder}/size") or 0) * _SECTOR


def _gpt(path: str, block_size: int) -> dict[int, tuple[str, str, str]]:
    """Number -> (type, name, UUID) of each partition in a GUID partition table; nothing if there is none."""
    found = {}
    with open(path, "rb") as file:
        file.seek(block_size)
        header = file.read(_GPT_HEADER.size)
        if len(header) < _GPT_HEADER.size or header[:8] != b"EFI PART":
            return {}
        _signature, start, count, size = _GPT_HEADER.unpack(header)
        file.seek(start * block_size)
        table = file.read(min(count, _MOST_ENTRIES) * size)
    for index in range(len(table) // size):
        kind, own, label = _GPT_ENTRY.unpack_from(table, index * size)
        if any(kind):
            text = label.decode("utf-16-le", "replace").partition("\0")[0]
            found[index + 1] = (_guid(kind), text, _guid(own))
    return found


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _uuid(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _guid(data: bytes) -> str:
    """The same of a UUID as EFI stores it: its first three numbers are little-endian."""
    return _uuid(data[3::-1] + data[5:3:-1] + data[7:5:-1] + data[8:])


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
