"""Images and containers as volumes of a thin pool, each with a file system of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from pytest_kernelfs.guest import files, space, storage
from pytest_kernelfs.resources.dm_thin import Thin, ThinPool
from pytest_kernelfs.resources.filesystem import Filesystem, filesystem_on
from pytest_kernelfs.resources.storage.backend import TIMEOUT_S, Started, StorageBackend, StorageUsage

# A new volume reads as zeros: there is nothing that mkfs, or the kernel later on, has to blank.
MKFS = {"ext4": ("-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"), "xfs": ("-K",)}
# Snapshots of an XFS have its identity.
OPTIONS = {"ext4": ("noinit_itable",), "xfs": ("nouuid",)}

# The place of a container: its volume, and the file system on it.
Place = tuple[Thin, Filesystem]


@final
class ThinStorage(StorageBackend):
    """Volumes of ``pool``, all snapshots of one with an empty file system.

    ``discard`` tells whether a volume is discarded before it is removed: only that gives room back below the
    pool. ``files`` are the paths of files that the pool lies in.
    """

    def __init__(
        self,
        name: str,
        filesystem: str,
        pool: ThinPool,
        empty: Thin,
        *,
        discard: bool,
        options: Sequence[str],
        files: Sequence[str],
    ) -> None:
        super().__init__(pool.resources, name, filesystem)
        self.pool = pool
        self.discard = discard
        self.files = list(files)
        self._empty = empty
        self._options = [*OPTIONS[filesystem], *options]

    def used(self) -> StorageUsage:
        vm = self.resources.vm
        mounts = [mount.path for mount in self.resources.mounts if self._is_ours(mount)]
        vm.guest(storage.sync_all, mounts, timeout=TIMEOUT_S)
        status = self.pool.status()
        backing = [vm.guest(space.used, path, True)["used"] for path in self.files]
        return StorageUsage(
            status.used_data_bytes, status.used_metadata_bytes, sum(backing) if backing else None
        )

    def _make(self, contents: dict[str, str | bytes]) -> Thin:
        volume, mounted = self._mounted_copy(self._empty)
        mounted.checked = False  # what is made from it will be
        self.resources.vm.guest(files.make_tree, mounted.path, contents, timeout=TIMEOUT_S)
        mounted.umount()
        return volume

    def _drop(self, place: Thin) -> None:
        if self.discard:
            self.resources.vm.guest(storage.discard, place.path, place.size, timeout=TIMEOUT_S)
        place.delete()

    def _start(self, image: Thin) -> Started:
        place = self._mounted_copy(image)
        return Started(place, place[1].path, place[1])

    def _commit(self, container: Place, image: Thin) -> Thin:  # noqa: ARG002  (a snapshot is complete)
        return self.pool.snapshot(of=container[0])

    def _end(self, container: Place) -> None:
        volume, mounted = container
        mounted.umount()
        mounted.checked = False
        self._drop(volume)

    def _mounted_copy(self, of: Thin) -> Place:
        volume = self.pool.snapshot(of=of)
        made = filesystem_on(self.resources, self.filesystem, volume)
        made.mount(self._options)
        return volume, made

    def _is_ours(self, mount: object) -> bool:
        on = getattr(mount, "on", None)
        return isinstance(on, Thin) and on.pool is self.pool
