"""Images as layers below overlays, as most container runtimes have them."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import final

from pytest_kernelfs.guest import overlay as guest
from pytest_kernelfs.guest import storage
from pytest_kernelfs.resources.filesystem import Filesystem
from pytest_kernelfs.resources.overlay import Overlay
from pytest_kernelfs.resources.overlay_layout import Layout
from pytest_kernelfs.resources.storage.backend import TIMEOUT_S, Started, StorageBackend, StorageUsage

# The place of an image: its layers, topmost first.
Layers = list[str]


@final
class OverlayStorage(StorageBackend):
    """Layers and upper folders on one file system, ``on``; ``options`` are those of the overlays."""

    def __init__(self, name: str, on: Filesystem, options: Sequence[str]) -> None:
        super().__init__(on.resources, name, on.kind)
        self.on = on
        self._options = ",".join(options)

    def used(self) -> StorageUsage:
        return StorageUsage(self.resources.vm.guest(storage.used, self.on.path, timeout=TIMEOUT_S))

    def _make(self, contents: dict[str, str | bytes]) -> Layers:
        layer = self._folder("layer")
        self.resources.vm.guest(guest.make_layers, [(layer, contents)], timeout=TIMEOUT_S)
        return [layer]

    def _drop(self, place: Layers) -> None:
        self.resources.vm.guest(storage.remove_tree, place[0], timeout=TIMEOUT_S)

    def _start(self, image: Layers) -> Started:
        name = self.resources.name(Overlay.kind)
        layout = Layout.of(self.resources.mount_point(name), image, [], f"{self.on.path}/{name}")
        overlay = Overlay(self.resources, self.on, layout, self._options, "auto")
        return Started(overlay, overlay.path, overlay)

    def _commit(self, container: Overlay, image: Layers) -> Layers:
        """Copied as through an archive: what was removed stays removed, and no block is shared."""
        layer = self._folder("layer")
        copy = ["cp", "-a", "--reflink=never", container.upper, layer]
        self.resources.vm.run(copy, check=True, timeout=TIMEOUT_S)
        return [layer, *image]

    def _end(self, container: Overlay) -> None:
        container.umount()
        folder = posixpath.dirname(container.upper)
        self.resources.vm.guest(storage.remove_tree, folder, timeout=TIMEOUT_S)

    def _folder(self, kind: str) -> str:
        return f"{self.on.path}/{self.resources.name(kind)}"
