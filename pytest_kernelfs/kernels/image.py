"""The header of an x86 kernel image: what release it is."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.kernels.version import KernelVersion

_BOOT_FLAG = 0x1FE
_MAGIC = 0x202
_VERSION_POINTER = 0x20E
_SETUP_START = 0x200
# The string lies in the set-up code, which is at most 64 sectors long.
_HEADER_BYTES = 0x200 + 64 * 512


@dataclass(frozen=True)
class ImageInfo:
    """What an image says of itself: its release, and the version with the stable level if it tells."""

    release: str
    version: KernelVersion


def read_image(path: Path) -> ImageInfo:
    """Read the release out of a bzImage.

    Raises: UsageError if the file is none; InfrastructureError if it cannot be read.
    """
    banner = _banner(_head(path), path)
    release = banner.split(" ", 1)[0]
    debian = re.search(r"\bDebian ([0-9]\S*)", banner)
    try:
        version = KernelVersion.from_package(debian[1] if debian else release, release)
    except UsageError as error:
        raise _no_image(path, f"its version string is {banner[:60]!r}") from error
    return ImageInfo(release, version)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except PermissionError as error:
        raise InfrastructureError(
            f"cannot read the kernel image {path}: permission is denied; make it readable, or copy it "
            "to a place of your own"
        ) from error


def _banner(head: bytes, path: Path) -> str:
    if head[:4] == b"\x7fELF":
        raise _no_image(path, "it is an ELF file; give the bzImage, not vmlinux")
    if head[_MAGIC : _MAGIC + 4] != b"HdrS" or head[_BOOT_FLAG : _BOOT_FLAG + 2] != b"\x55\xaa":
        raise _no_image(path, "it lacks the x86 boot header")
    (pointer,) = struct.unpack_from("<H", head, _VERSION_POINTER)
    text = head[_SETUP_START + pointer :].split(b"\0", 1)[0] if pointer else b""
    if not text:
        raise _no_image(path, "its header names no version")
    return text[:512].decode("utf-8", "replace")


def _no_image(path: Path, seen: str) -> UsageError:
    return UsageError(
        f"{path} is no Linux kernel image that can be booted here: {seen}; give a bzImage "
        "(arch/x86/boot/bzImage of a built tree, or /boot/vmlinuz-RELEASE)"
    )
