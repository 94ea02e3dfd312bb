"""Images and containers as subvolumes of one btrfs."""

from __future__ import annotations

from typing import final

from pytest_kernelfs.guest import storage
from pytest_kernelfs.resources.filesystem import Filesystem
from pytest_kernelfs.resources.storage.backend import TIMEOUT_S, Started, StorageBackend, StorageUsage

# The kernel removes what a subvolume held in a thread of its own.
_PATIENCE_S = 120.0


@final
class BtrfsStorage(StorageBackend):
    """Subvolumes of the btrfs ``on``: an image is one, a container is a snapshot of it."""

    def __init__(self, name: str, on: Filesystem) -> None:
        super().__init__(on.resources, name, on.kind)
        self.on = on

    def used(self) -> StorageUsage:
        data, metadata = self.resources.vm.guest(storage.btrfs_used, self.on.path, timeout=TIMEOUT_S)
        return StorageUsage(data, metadata)

    def _make(self, contents: dict[str, str | bytes]) -> str:
        path = self._path("image")
        self.resources.vm.guest(storage.make_subvolume, path, contents, timeout=TIMEOUT_S)
        return path

    def _drop(self, place: str) -> None:
        self.resources.vm.guest(storage.remove_subvolume, place, _PATIENCE_S, timeout=TIMEOUT_S)

    def _start(self, image: str) -> Started:
        path = self._snapshot(image, "container")
        return Started(path, path, None)

    def _commit(self, container: str, image: str) -> str:  # noqa: ARG002  (a snapshot is complete)
        return self._snapshot(container, "image")

    def _end(self, container: str) -> None:
        self._drop(container)

    def _snapshot(self, source: str, kind: str) -> str:
        path = self._path(kind)
        self.resources.vm.guest(storage.snapshot_subvolume, source, path, timeout=TIMEOUT_S)
        return path

    def _path(self, kind: str) -> str:
        return f"{self.on.path}/{self.resources.name(kind)}"
