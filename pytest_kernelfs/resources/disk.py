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

CACHE_MODES = ("writeback", "writethrough")
SECTOR_SIZES = (512, 4096)
_PLAIN = DiskSpec(0)


@final
class Disk:
    """A disk of the machine: ``path`` is its device in the guest, ``spec`` its size, kind and speed."""

    def __init__(self, resources: Resources, spec: DiskSpec) -> None:
        resources.demand_open("disk")
        self.resources = resources
        self.spec = spec
        self.serial = resources.vm.machine.attach_disk(spec)
        self.path = ""
        resources.disks.append(self)
        self.find_again()

    def __repr__(self) -> str:
        spec = self.spec
        limits = {"write": spec.write_bps, "read": spec.read_bps}
        words = [f"{name} {format_size(value)}/s" for name, value in limits.items() if value]
        words += [f"{spec.iops} IOPS"] if spec.iops else []
        words += [spec.cache] if spec.cache != _PLAIN.cache else []
        words += [f"sectors of {spec.sector_size}"] if spec.sector_size != _PLAIN.sector_size else []
        return " ".join(["<disk", self.path or self.serial, format_size(spec.size), *words]) + ">"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.spec.size

    @property
    def disk(self) -> Disk:
        """Itself, as of every block device: the disk that its data ends on."""
        return self

    def find_again(self) -> None:
        """Look for the device in the guest, as when it has just been plugged in."""
        self.resources.on_teardown(f"disk {self.serial}", self._detach)
        self.path = self.resources.vm.guest(blocks.find_disk, self.serial, self.spec.size)

    def throttle(self, *, write_bps: Size = 0, read_bps: Size = 0, iops: int = 0) -> None:
        """Set the speed from now on, in bytes and operations per second; 0 lifts a limit."""
        self._limit(_with_limits(self.spec, write_bps, read_bps, iops))

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
                self._limit(limited)

    def _limit(self, spec: DiskSpec) -> None:
        if self not in self.resources.disks:
            raise UsageError(f"{self!r} was there for a test that is over")
        self.resources.vm.machine.throttle_disk(self.serial, spec)
        self.spec = spec

    def _detach(self) -> None:
        if self in self.resources.disks:
            self.resources.disks.remove(self)
        self.resources.vm.machine.detach_disk(self.serial)


class DiskFactory:
    """Makes disks: the ``disk_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(
        self,
        *,
        size: Size = "1G",
        write_bps: Size = 0,
        read_bps: Size = 0,
        iops: int = 0,
        cache: str = "writeback",
        sector_size: int = 512,
        power_cut: bool = False,
    ) -> Disk:
        """Attach an empty disk: ``size`` in bytes (sparse on the host), speeds per second, 0 for no limit.

        ``cache`` is "writeback" for a disk that tells the guest of a volatile write cache, so that the
        guest flushes it, or "writethrough" for one without. ``sector_size`` is 512 or 4096 bytes, logical
        and physical. ``power_cut`` has the host record all writes, for ``vm.power_cut``.

        Raises: UsageError, InfrastructureError.
        """
        if cache not in CACHE_MODES:
            raise UsageError(f"disk_factory: cache={cache!r} is none of {', '.join(map(repr, CACHE_MODES))}")
        if sector_size not in SECTOR_SIZES:
            raise UsageError(f"disk_factory: sector_size={sector_size!r} is none of 512, 4096")
        capacity = parse_size(size, "disk size")
        if capacity < sector_size or capacity % sector_size:
            raise UsageError(f"disk size {size!r} is no positive multiple of {sector_size} bytes")
        spec = DiskSpec(capacity, cache=cache, sector_size=sector_size, power_cut=power_cut)
        return Disk(self._resources, _with_limits(spec, write_bps, read_bps, iops))


def _with_limits(spec: DiskSpec, write_bps: Size, read_bps: Size, iops: int) -> DiskSpec:
    return replace(
        spec,
        write_bps=parse_size(write_bps, "write_bps"),
        read_bps=parse_size(read_bps, "read_bps"),
        iops=parse_size(iops, "iops"),
    )
