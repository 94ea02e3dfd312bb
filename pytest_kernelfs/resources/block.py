"""What all block devices of a test have in common: disks, loop devices, and what is stacked on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources

if TYPE_CHECKING:
    from pytest_kernelfs.resources.disk import Disk


@runtime_checkable
class BlockDevice(Protocol):
    """A block device in the guest, on which file systems and other devices can be made."""

    resources: Resources

    @property
    def path(self) -> str:
        """The device in the guest: "/dev/vda"."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def disk(self) -> Disk | None:
        """The disk of the machine that its data ends on; None if that is memory. A disk gives itself."""


def check_device(what: str, device: Any) -> None:
    """Raises: UsageError if ``device``, the argument that ``what`` names, is no block device of a test."""
    if isinstance(device, Mount) or not isinstance(device, BlockDevice):
        raise UsageError(
            f"{what}: {device!r} is no block device; give what disk_factory, loop_device_factory or "
            "another factory of devices made"
        )


@contextmanager
def full_speed(below: BlockDevice | Mount | None) -> Iterator[None]:
    """Lift the limits of the disk below a device or a mount for a while; without a disk, nothing happens.

    Preparing a file system is not what a test measures.
    """
    disk = below.disk if below is not None else None
    if disk is None:
        yield
        return
    with disk.full_speed():
        yield
