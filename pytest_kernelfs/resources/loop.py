"""Loop devices on sparse files or on other block devices."""

from __future__ import annotations

from typing import final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import blocks, files
from pytest_kernelfs.resources.block import BlockDevice, check_device
from pytest_kernelfs.resources.disk import Disk
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import ROOT, Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size

_SECTOR = 512
_DEFAULT_SIZE = "512M"


@final
class LoopDevice:
    """A loop device: ``path`` is the device, ``backing`` the file or device behind it, ``size`` in bytes."""

    def __init__(self, resources: Resources, path: str, backing: str, size: int, disk: Disk | None) -> None:
        self.resources = resources
        self.path = path
        self.backing = backing
        self.size = size
        self.disk = disk

    def __repr__(self) -> str:
        return f"<loop device {self.path} {format_size(self.size)} on {self.backing}>"


class LoopDeviceFactory:
    """Makes loop devices: the ``loop_device_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(
        self,
        *,
        size: Size | None = None,
        on: BlockDevice | Mount | None = None,
        sector_size: int = 512,
        read_only: bool = False,
        direct_io: bool = False,
    ) -> LoopDevice:
        """Attach a loop device, of 512M if no size is given.

        ``on`` is a mounted file system, to hold a sparse backing file of ``size`` bytes; a block device,
        which then is itself what is behind the loop device (``size`` is the device's); or None for a sparse
        file in the machine's memory. ``sector_size`` is a power of two from 512 bytes on; how large it may be
        is for the kernel to say.

        Raises: UsageError; GuestCommandError with the kernel's reason, also if it cannot do ``direct_io`` to
        what is below.
        """
        if type(sector_size) is not int or sector_size < _SECTOR or sector_size & (sector_size - 1):
            raise UsageError(
                f"loop_device_factory: sector_size={sector_size!r} is no power of two from {_SECTOR} bytes on"
            )
        self._resources.demand_open("loop device")
        if on is not None and not isinstance(on, Mount):
            check_device("loop_device_factory(on=…)", on)
            if size is not None:
                raise UsageError("loop_device_factory: the size is that of the device given as 'on'; omit it")
            return self._attach(on.path, on.size, on.disk, sector_size, read_only, direct_io)
        if on is not None:
            on.demand_mounted("loop_device_factory, on")
        folder = on.path if on is not None else f"{ROOT}/loop"
        backing = f"{folder}/{self._resources.name('loop')}.img"
        size = _DEFAULT_SIZE if size is None else size
        capacity = parse_size(size, "loop device size")
        if capacity < sector_size or capacity % sector_size:
            raise UsageError(f"loop device size {size!r} is no positive multiple of {sector_size} bytes")
        vm = self._resources.vm
        vm.guest(blocks.make_sparse, backing, capacity)
        self._resources.on_teardown(f"backing file {backing}", lambda: self._remove(backing, on))
        disk = on.disk if on is not None else None
        return self._attach(backing, capacity, disk, sector_size, read_only, direct_io)

    def _remove(self, backing: str, on: Mount | None) -> None:
        try:
            self._resources.vm.guest(files.remove, backing)
        except GuestCommandError:
            # One that the test shut down or made read-only keeps its file, which goes with it.
            if on is None:
                raise

    def _attach(
        self, backing: str, size: int, disk: Disk | None, sector_size: int, read_only: bool, direct_io: bool
    ) -> LoopDevice:
        vm = self._resources.vm
        path: str = vm.guest(blocks.attach_loop, backing, read_only, direct_io, sector_size)
        self._resources.on_teardown(f"loop device {path}", lambda: vm.guest(blocks.detach_loop, path))
        return LoopDevice(self._resources, path, backing, size, disk)
