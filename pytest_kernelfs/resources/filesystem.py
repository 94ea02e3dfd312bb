"""File systems on block devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import mounts
from pytest_kernelfs.resources import mkfs_xfs
from pytest_kernelfs.resources.disk import Disk
from pytest_kernelfs.resources.loop import LoopDevice, LoopDeviceFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import MOUNTS, Resources
from pytest_kernelfs.sizes import Size
from pytest_kernelfs.tools import missing_message

BlockDevice = Disk | LoopDevice


@final
class Xfs(Mount):
    """A mounted XFS: ``path`` is where, ``device`` the block device, ``mkfs`` the flags it was made with."""

    kind = "xfs"

    def __init__(self, resources: Resources, device: BlockDevice, mkfs: list[str]) -> None:
        path = f"{MOUNTS}/{resources.name(self.kind)}"
        disk = device if isinstance(device, Disk) else device.disk
        super().__init__(resources, path, path, disk)
        self.device = device.path
        self.mkfs = mkfs

    def __repr__(self) -> str:
        return f"<xfs {self.path} on {self.device}>"

    def mount(self, options: Sequence[str]) -> None:
        """Mount it with these options. Raises: GuestCommandError with the kernel's reason."""
        vm = self.resources.vm
        vm.guest(mounts.mount, self.device, self.path, "xfs", ",".join(options))
        self._mounted()


class XfsFactory:
    """Makes XFS file systems: the ``xfs_factory`` fixture."""

    def __init__(self, resources: Resources, loops: LoopDeviceFactory) -> None:
        self._resources = resources
        self._loops = loops

    def __call__(
        self,
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        project_quota: bool = False,
    ) -> Xfs:
        """Make and mount an XFS.

        ``on`` is a disk or loop device; by default a fresh loop device of ``size`` (512M) bytes on a sparse
        file in memory. ``mkfs`` adds flags to those chosen for the kernel, ``options`` are mount
        options, ``project_quota`` mounts with pquota.

        Raises: UsageError; GuestCommandError with mkfs.xfs's words or the kernel's reason.
        """
        if on is not None and size is not None:
            raise UsageError("xfs_factory: the size comes with the device given as 'on'; give one of the two")
        device = on or self._loops(size="512M" if size is None else size)
        disk = device if isinstance(device, Disk) else device.disk
        kernel = self._resources.vm.kernel.version
        flags = [*mkfs_xfs.mkfs_flags(self._mkfs_version(), kernel, mkfs), *mkfs]
        with _full_speed(disk):
            self._make(device, flags)
            xfs = Xfs(self._resources, device, flags)
            xfs.mount([*options, "pquota"] if project_quota else options)
        return xfs

    def _mkfs_version(self) -> tuple[int, int]:
        done = self._resources.vm.run(["mkfs.xfs", "-V"])
        if done.rc == 127:
            raise GuestCommandError(missing_message("mkfs.xfs"))
        return mkfs_xfs.parse_mkfs_version(done.stdout)

    def _make(self, device: BlockDevice, flags: list[str]) -> None:
        command = ["mkfs.xfs", "-q", "-f", *flags, device.path]
        done = self._resources.vm.run(command, timeout=300.0)
        if done.failed:
            # It goes on with a page of usage.
            reason = done.stderr.partition("Usage:")[0].strip()
            raise GuestCommandError(f"{' '.join(command)} failed: {reason}")


@contextmanager
def _full_speed(disk: Disk | None) -> Iterator[None]:
    if disk is None:
        yield
        return
    with disk.full_speed():
        yield
