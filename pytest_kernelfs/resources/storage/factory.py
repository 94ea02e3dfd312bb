"""Makes storage backends."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.block import BlockDevice, check_device
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.dm_thin import Thin, ThinPool
from pytest_kernelfs.resources.filesystem import Filesystem
from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory
from pytest_kernelfs.resources.loop import LoopDevice, LoopDeviceFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.storage import thin
from pytest_kernelfs.resources.storage.backend import StorageBackend
from pytest_kernelfs.resources.storage.btrfs import BtrfsStorage
from pytest_kernelfs.resources.storage.names import parse
from pytest_kernelfs.resources.storage.overlay import OverlayStorage
from pytest_kernelfs.resources.storage.thin import ThinStorage
from pytest_kernelfs.sizes import Size

DEFAULT_SIZE = "1G"
DEFAULT_BLOCK = "64K"
# 48 bytes for each block of data, says the kernel's thin-provisioning.txt; snapshots take more.
_METADATA_SHARE = 64
_LEAST_METADATA = 16 << 20
_WHO = "storage_backend_factory"


class StorageBackendFactory:
    """Makes storage backends: the ``storage_backend_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._loops = LoopDeviceFactory(resources)
        self._dm = DmFactory(resources)
        self._filesystems = FilesystemFactory(resources, self._loops, _WHO)

    def __call__(
        self,
        name: str,
        *,
        on: BlockDevice | Mount | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        block_size: Size | None = None,
        discard: bool | None = None,
    ) -> StorageBackend:
        """Make a backend: "overlay-xfs", "overlay-ext4", "btrfs", "thin-ext4", "thin-loop-xfs" and so on.

        ``on`` is the block device for all data, by default a disk of ``size`` (1G) bytes; for thin-loop the
        mounted file system that holds the pool's files, by default memory. ``mkfs`` adds flags for the file
        system, ``options`` are mount options: those of the overlays, of the btrfs, or of the containers'
        file systems. For thin pools alone: ``block_size`` (64K), and ``discard``, whether a volume is
        discarded before it is removed, so that the room comes back below the pool; by default for thin-loop.

        Raises: UsageError; GuestCommandError with the tool's words or the kernel's reason.
        """
        kind, filesystem = parse(name)
        if not kind.startswith("thin"):
            if block_size is not None or discard is not None:
                raise UsageError(f"{_WHO}: block_size and discard are for thin pools, not for {name}")
            device = self._device(on, size)
            if kind == "overlay":
                return OverlayStorage(name, self._file_system(filesystem, device, mkfs, ()), options)
            return BtrfsStorage(name, self._file_system(filesystem, device, mkfs, options))
        in_files = kind == "thin-loop"
        data, meta = self._files(on, size) if in_files else self._devices(on, size)
        pool = self._dm.thin_pool(
            meta=meta, data=data, block_size=DEFAULT_BLOCK if block_size is None else block_size
        )
        backing = [device.backing for device in (data, meta) if isinstance(device, LoopDevice)]
        return ThinStorage(
            name,
            filesystem,
            pool,
            self._empty_volume(pool, filesystem, mkfs),
            discard=in_files if discard is None else discard,
            options=options,
            files=backing if in_files else (),
        )

    def _empty_volume(self, pool: ThinPool, filesystem: str, mkfs: Sequence[str]) -> Thin:
        """A volume with an empty file system, of which all others are snapshots."""
        volume = pool.thin(size=pool.data.size)
        flags = [*thin.MKFS[filesystem], *mkfs]
        made = self._file_system(filesystem, volume, flags, thin.OPTIONS[filesystem])
        made.umount()
        made.checked = False  # what is made from it will be
        return volume

    def _file_system(
        self, kind: str, device: BlockDevice, mkfs: Sequence[str], options: Sequence[str]
    ) -> Filesystem:
        made = self._filesystems(kind, on=device, mkfs=mkfs, options=options)
        assert isinstance(made, Filesystem)
        return made

    def _device(self, on: BlockDevice | Mount | None, size: Size | None) -> BlockDevice:
        if on is None:
            return DiskFactory(self._resources)(size=DEFAULT_SIZE if size is None else size)
        if size is not None:
            raise UsageError(f"{_WHO}: the size comes with the device given as 'on'; give one of the two")
        check_device(f"{_WHO}, on", on)
        assert not isinstance(on, Mount)
        return on

    def _devices(self, on: BlockDevice | Mount | None, size: Size | None) -> tuple[BlockDevice, BlockDevice]:
        """For a pool's data and its metadata."""
        data = self._device(on, size)
        return data, DiskFactory(self._resources)(size=_metadata(data.size))

    def _files(self, on: BlockDevice | Mount | None, size: Size | None) -> tuple[LoopDevice, LoopDevice]:
        """The same on files of a mounted file system."""
        if on is not None and not isinstance(on, Mount):
            raise UsageError(f"{_WHO}: {on!r} cannot hold the files of the pool; give a mounted file system")
        data = self._loops(size=DEFAULT_SIZE if size is None else size, on=on)
        return data, self._loops(size=_metadata(data.size), on=on)


def _metadata(data: int) -> int:
    return max(_LEAST_METADATA, data // _METADATA_SHARE // 4096 * 4096)
