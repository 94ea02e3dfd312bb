"""What all storage backends have in common: images, containers that begin as one, commits."""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from pytest_kernelfs.arguments import check_files, lies_below
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import files
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, parse_size

Contents = Mapping[str, str | bytes]
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class StorageUsage:
    """Bytes that a backend takes; ``metadata`` is None where it is not kept apart from ``data``.

    ``backing`` is what is allocated to the files that all lies in; None where it lies on devices.
    """

    data: int
    metadata: int | None = None
    backing: int | None = None

    @property
    def total(self) -> int:
        """Data and metadata."""
        return self.data + (self.metadata or 0)

    def __sub__(self, earlier: StorageUsage) -> StorageUsage:
        """What was taken since; below 0 if it became less."""
        return StorageUsage(
            self.data - earlier.data,
            _difference(self.metadata, earlier.metadata),
            _difference(self.backing, earlier.backing),
        )


def _difference(now: int | None, earlier: int | None) -> int | None:
    return None if now is None or earlier is None else now - earlier


class StorageBackend(ABC):
    """Keeps images and containers: ``name`` says how, ``filesystem`` on what.

    What the place of an image or of a container is, each kind of backend decides by itself.
    """

    def __init__(self, resources: Resources, name: str, filesystem: str) -> None:
        self.resources = resources
        self.name = name
        self.filesystem = filesystem

    def __repr__(self) -> str:
        return f"<storage backend {self.name}>"

    def image(self, contents: Contents) -> StorageImage:
        """Make an image of files: name to content; a name that ends in "/" is a folder.

        Raises: UsageError; GuestCommandError if there is no room, for example.
        """
        if not isinstance(contents, Mapping):
            raise UsageError(f"{self!r}: {contents!r} is no mapping of names of files to what is in them")
        check_files(repr(self), "image", "its root", contents)
        return StorageImage(self, None, self._make(dict(contents)))

    def container(self, image: StorageImage) -> StorageContainer:
        """Mount what begins as a copy of an image, and can be written to.

        Raises: UsageError if the image was removed, or is another backend's; GuestCommandError.
        """
        if not isinstance(image, StorageImage) or image.backend is not self:
            raise UsageError(f"{self!r}: {image!r} is no image of its own")
        image.demand()
        return StorageContainer(self, image, self._start(image.place))

    @abstractmethod
    def used(self) -> StorageUsage:
        """What it takes by now; what is dirty is written back before, so that it counts."""

    @abstractmethod
    def _make(self, contents: dict[str, str | bytes]) -> Any:
        """Make the place of an image."""

    @abstractmethod
    def _drop(self, place: Any) -> None:
        """Remove the place of an image, and give back what no other place needs."""

    @abstractmethod
    def _start(self, image: Any) -> Started:
        """Make and mount the place of a container, from that of an image."""

    @abstractmethod
    def _commit(self, container: Any, image: Any) -> Any:
        """Make the place of an image from those of a container and of the image that it was made from."""

    @abstractmethod
    def _end(self, container: Any) -> None:
        """Unmount and remove the place of a container."""


@dataclass(frozen=True)
class Started:
    """A container's place, its root in the guest, and what was mounted there."""

    place: Any
    path: str
    mount: Mount | None


class _Kept(ABC):
    """What a backend keeps until it is removed."""

    def __init__(self, backend: StorageBackend) -> None:
        self.resources = backend.resources
        self.backend = backend
        self._removed = False

    def demand(self) -> None:
        """Raises: UsageError if it was removed."""
        if self._removed:
            raise UsageError(f"{self!r} was removed")

    @abstractmethod
    def remove(self) -> None:
        """Give back what it took. To remove it twice is no error."""


@final
class StorageImage(_Kept):
    """An image: ``base`` is the one that the container was made from of which it was committed."""

    def __init__(self, backend: StorageBackend, base: StorageImage | None, place: Any) -> None:
        super().__init__(backend)
        self.base = base
        self.place = place
        self._users = 0
        if base is not None:
            base.used_by(1)

    def __repr__(self) -> str:
        made = "committed image" if self.base is not None else "image"
        return f"<{made} of {self.backend.name}>"

    def used_by(self, more: int) -> None:
        """Count who still needs it: containers, and images on top of it."""
        self._users += more

    def remove(self) -> None:
        """Remove it, and give back what nothing else needs. To remove it twice is no error.

        Raises: UsageError while containers, or images committed of them, were made from it.
        """
        if self._removed:
            return
        if self._users:
            raise UsageError(f"{self!r} is in use by {self._users} containers or images; remove these first")
        self.backend._drop(self.place)
        self._removed = True
        if self.base is not None:
            self.base.used_by(-1)


@final
class StorageContainer(_Kept):
    """The files of a container: ``path`` is its root in the guest, ``image`` what it was made from.

    ``mount`` is what was mounted for it, an `Overlay` or a `Filesystem`; None for a subvolume of btrfs.
    """

    def __init__(self, backend: StorageBackend, image: StorageImage, started: Started) -> None:
        super().__init__(backend)
        self.image = image
        self.path = started.path
        self.mount = started.mount
        self._place = started.place
        image.used_by(1)

    def __repr__(self) -> str:
        return f"<container {self.path} of {self.backend.name}>"

    def write(self, path: str, size: Size, *, offset: Size | None = None) -> float:
        """Write ``size`` bytes of incompressible data to a file, from ``offset`` on; without, to a new file.

        Gives the seconds it took. Raises: UsageError, GuestCommandError.
        """
        place = () if offset is None else (parse_size(offset, "container.write: offset"),)
        target = self._below(path)
        length = parse_size(size, "container.write: size")
        return float(self.resources.vm.guest(files.write, target, length, *place, timeout=TIMEOUT_S))

    def read(self, path: str) -> bytes:
        """The content of a file. Raises: UsageError; GuestCommandError if it is not there."""
        return self.resources.vm.get(self._below(path))

    def commit(self) -> StorageImage:
        """Make an image of what it holds now; the container goes on.

        Raises: UsageError if it was removed; GuestCommandError.
        """
        self.demand()
        place = self.backend._commit(self._place, self.image.place)
        return StorageImage(self.backend, self.image, place)

    def remove(self) -> None:
        """Unmount it, and give back what it took. To remove it twice is no error.

        Raises: GuestCommandError, naming who keeps it busy.
        """
        if self._removed:
            return
        self.backend._end(self._place)
        self._removed = True
        self.image.used_by(-1)

    def _below(self, path: str) -> str:
        self.demand()
        if not lies_below(path):
            raise UsageError(f"{self!r}: {path!r} is no path below its root")
        return posixpath.join(self.path, path)
