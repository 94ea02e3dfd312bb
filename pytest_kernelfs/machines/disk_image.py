"""Disk images whose system machines boot: what they are, how one is asked for, what goes wrong with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.image_agent import COMING_UP
from pytest_kernelfs.guest.image_boot import FAILED
from pytest_kernelfs.machines import qcow2

SERIAL = "kernelfs-image"
"""The serial number of the disk with the image."""
_HEAD = 68 << 10
_SECTOR = 512
# A raw image that holds a root begins with a partition table (GPT has MBR's sign, too), XFS, ext4 or btrfs.
_SYSTEMS = ((510, b"\x55\xaa"), (0, b"XFSB"), (0x438, b"\x53\xef"), (0x10040, b"_BHRfS_M"))
# What QEMU takes for something else than the name of a file.
_NO_FILE = re.compile(r"\w+:")
_OTHERS = (
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"KDMV", "an image for VMware (vmdk)"),
    (0, b"vhdxfile", "an image for Hyper-V (vhdx)"),
    (0, b"conectix", "an image for Hyper-V (vhd)"),
    (64, b"\x7f\x10\xda\xbe", "an image for VirtualBox (vdi)"),
    (257, b"ustar", "a tar archive"),
)


@dataclass(frozen=True)
class DiskImage:
    """A disk image: ``format`` is raw or qcow2, ``size`` the bytes that a guest sees of it.

    ``identity`` changes whenever the content may have, by what the files' system says of them. ``layered`` is
    True for one that lies on top of another file.
    """

    path: Path
    format: str
    size: int
    identity: str
    layered: bool = False

    @classmethod
    def read(cls, path: Path) -> DiskImage:
        """Raises: UsageError if there is no such file, or it is none that can be booted."""
        head = _head(path)
        found = next((what for offset, sign, what in _OTHERS if _has(head, offset, sign)), None)
        if found:
            raise UsageError(
                f"--kernelfs-image: {path} is {found}; unpack it, or convert it to qcow2: "
                f"qemu-img convert -O qcow2 {path.name} {path.stem}.qcow2"
            )
        if _is_qcow2(path, head):
            identities = _identities(path, head)
            return cls(path, "qcow2", qcow2.size_of(head), "\n".join(identities), len(identities) > 1)
        if not any(_has(head, offset, sign) for offset, sign in _SYSTEMS):
            raise UsageError(
                f"--kernelfs-image: {path} is no disk image: it has no partition table, and is no ext4, "
                "xfs or btrfs; give a raw or qcow2 file"
            )
        size = -(-path.stat().st_size // _SECTOR) * _SECTOR
        return cls(path, "raw", size, _identity(path))


def arguments(partition: str = "") -> str:
    """What the kernel is told to boot the disk with the number SERIAL; see ``guest.image_boot``."""
    which = f" kernelfs.partition={partition}" if partition else ""
    return f"kernelfs.root=serial:{SERIAL}{which}"


def boot_trouble(console: str) -> str:
    """What the console says of an image that does not boot, or has not booted yet; "" if it says nothing."""
    for line in reversed(console.splitlines()):
        for sign in (FAILED, COMING_UP):
            if sign in line:
                return line[line.index(sign) :].rstrip()
    return ""


def _has(head: bytes, offset: int, sign: bytes) -> bool:
    return head[offset : offset + len(sign)] == sign


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise UsageError(f"--kernelfs-image: cannot read {path}: {error.strerror}") from None
    if not head:
        raise UsageError(f"--kernelfs-image: {path} is empty")
    return head


def _identities(path: Path, head: bytes) -> list[str]:
    """The identity of a qcow2 file, and of all that are below it."""
    found = [_identity(path)]
    while backing := qcow2.backing_of(head) if _is_qcow2(path, head) else "":
        if _NO_FILE.match(backing):
            return [*found, backing]
        path = path.resolve().parent / backing
        head = _head(path)
        identity = _identity(path)
        if identity in found:
            raise UsageError(f"--kernelfs-image: {path} lies on top of itself, so nothing is at the bottom")
        found.append(identity)
    return found


def _is_qcow2(path: Path, head: bytes) -> bool:
    if head[:4] == qcow2.MAGIC and len(head) < qcow2.SHORTEST:
        raise UsageError(
            f"--kernelfs-image: {path} begins like a qcow2 image, and ends after {len(head)} bytes"
        )
    return head[:4] == qcow2.MAGIC


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"
