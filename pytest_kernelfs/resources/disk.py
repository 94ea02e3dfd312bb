"""Disks: virtio-blk, found by serial number, with a speed that is part of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import blocks
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size

_SECTOR = 512


@final
class Disk:
    """A disk of the machine: ``path`` is its device in the guest, ``spec`` its size and speed."""

    def __init__(self, resources: Resources, spec: DiskSpec) -> None:
        self.resources = resources
        self.spec = spec
        vm = resources.vm
        self.serial = vm.machine.attach_disk(spec)
        resources.on_teardown(f"disk {self.serial}", self._detach)
        self.path: str = vm.guest(blocks.find_disk, self.serial, spec.size)

    def __repr__(self) -> str:
        limits = {"write": self.spec.write_bps, "read": self.spec.read_bps}
        shown = "".join(f" {name} {format_size(value)}/s" for name, value in limits.items() if value)
        iops = f" {self.spec.iops} IOPS" if self.spec.iops else ""
        return f"<disk {self.path} {format_size(self.spec.size)}{shown}{iops}>"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.spec.size

    @property
    def disk(self) -> Disk:
        """Itself, as of every block device: the disk that its data ends on."""
        return self

    def throttle(self, *, write_bps: Size = 0, read_bps: Size = 0, iops: int = 0) -> None:
        """Set the speed from now on, in bytes and operations per second; 0 lifts a limit."""
        self.spec = _with_limits(self.spec, write_bps, read_bps, iops)
        self.resources.vm.machine.throttle_disk(self.serial, self.spec)

    @contextmanager
    def full_speed(self) -> Iterator[None]:
        """Lift the limits for a while: preparing a file system is not what a test measures."""
        limited = self.spec
        if not (limited.write_bps or limited.read_bps or limited.iops):
            yield
            return
        self.throttle()
        try:
            yield
        finally:
            if self.resources.vm.usable:
                self.spec = limited
                self.resources.vm.machine.throttle_disk(self.serial, limited)

    def _detach(self) -> None:
        self.resources.vm.machine.detach_disk(self.serial)


class DiskFactory:
    """Makes disks: the ``disk_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(self, *, size: Size = "1G", write_bps: Size = 0, read_bps: Size = 0, iops: int = 0) -> Disk:
        """Attach an empty disk: ``size`` in bytes (sparse on the host), speeds per second, 0 for no limit.

        Raises: UsageError, InfrastructureError.
        """
        capacity = parse_size(size, "disk size")
        if capacity < _SECTOR or capacity % _SECTOR:
            raise UsageError(f"disk size {size!r} is no positive multiple of {_SECTOR} bytes")
        return Disk(self._resources, _with_limits(DiskSpec(capacity), write_bps, read_bps, iops))


def _with_limits(spec: DiskSpec, write_bps: Size, read_bps: Size, iops: int) -> DiskSpec:
    return replace(
        spec,
        write_bps=parse_size(write_bps, "write_bps"),
        read_bps=parse_size(read_bps, "read_bps"),
        iops=parse_size(iops, "iops"),
    )
