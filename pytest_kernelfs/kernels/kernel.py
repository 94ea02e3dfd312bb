"""The two stages of a kernel: a Candidate is known, a Kernel is here and ready to boot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels.version import KernelVersion


@dataclass(frozen=True)
class Package:
    """One Debian package to be downloaded: ``size`` in bytes, ``sha256`` in hex, both from a signed index."""

    name: str
    version: str
    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class LocalFiles:
    """Where the parts of a kernel of the user's own lie.

    Either ``debs``, or ``image`` with what else there is. ``tree`` is a build
    folder whose modules are to be collected.
    """

    image: Path | None = None
    modules: Path | None = None
    config: Path | None = None
    tree: Path | None = None
    debs: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "image": _text(self.image),
            "modules": _text(self.modules),
            "config": _text(self.config),
            "tree": _text(self.tree),
            "debs": [str(path) for path in self.debs],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LocalFiles:
        """The reverse of ``to_dict``."""
        return cls(
            image=_path(data["image"]),
            modules=_path(data["modules"]),
            config=_path(data["config"]),
            tree=_path(data["tree"]),
            debs=tuple(Path(path) for path in data["debs"]),
        )


@dataclass(frozen=True)
class Candidate:
    """A kernel that a spec resolved to; it may not have been downloaded yet.

    ``checksum`` (sha256, hex) identifies the content it has once fetched.
    """

    spec: str
    version: KernelVersion
    release: str
    source: str
    checksum: str
    packages: tuple[Package, ...] = ()
    local: LocalFiles | None = None

    @property
    def id(self) -> str:
        """The short name used as a pytest parameter id, e.g. ``5.10.262``."""
        return str(self.version)

    @property
    def download_size(self) -> int:
        """Bytes that must be downloaded if the cache has nothing."""
        return sum(package.size for package in self.packages)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, for another process."""
        return {
            "spec": self.spec,
            "version": str(self.version),
            "release": self.release,
            "source": self.source,
            "checksum": self.checksum,
            "packages": [vars(package) for package in self.packages],
            "local": self.local.to_dict() if self.local else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """The reverse of ``to_dict``."""
        return cls(
            spec=data["spec"],
            version=KernelVersion.parse(data["version"]),
            release=data["release"],
            source=data["source"],
            checksum=data["checksum"],
            packages=tuple(Package(**package) for package in data["packages"]),
            local=LocalFiles.from_dict(data["local"]) if data["local"] else None,
        )


@dataclass(frozen=True)
class Kernel:
    """A kernel that is on this host and ready to boot.

    ``release`` is what ``uname -r`` will say, ``source`` says where it came
    from, ``checksum`` (sha256, hex) identifies image and modules. ``modules``
    is the folder ``lib/modules/<release>``, with depmod's tables, or None.
    ``image`` is None for a kernel that runs already, on a machine that we do not boot.
    """

    version: KernelVersion
    release: str
    source: str
    checksum: str
    image: Path | None
    modules: Path | None = None
    config: Path | None = None

    @property
    def id(self) -> str:
        """The short name used as a pytest parameter id, e.g. ``5.10.262``."""
        return str(self.version)

    @property
    def boot_image(self) -> Path:
        """The image to boot. Raises: UsageError if there is none, because the kernel runs elsewhere."""
        if self.image is None:
            raise UsageError(
                f"kernel {self.release} ({self.source}) cannot be booted here: only its machine has it"
            )
        return self.image

    def config_option(self, name: str) -> str | None:
        """The build setting ``name`` (with or without ``CONFIG_``): ``y``, ``m``, a value, or None.

        None is also the answer where the kernel came without its config file.
        """
        if self.config is None:
            return None
        return _read_config(self.config).get(name.removeprefix("CONFIG_"))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values, for another process."""
        return {
            "version": str(self.version),
            "release": self.release,
            "source": self.source,
            "checksum": self.checksum,
            "image": _text(self.image),
            "modules": _text(self.modules),
            "config": _text(self.config),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Kernel:
        """The reverse of ``to_dict``."""
        return cls(
            version=KernelVersion.parse(data["version"]),
            release=data["release"],
            source=data["source"],
            checksum=data["checksum"],
            image=_path(data["image"]),
            modules=_path(data["modules"]),
            config=_path(data["config"]),
        )


def unique_ids(kernels: Sequence[Kernel | Candidate]) -> list[str]:
    """An id for each: its version; where that is shared its release; where that is too, with the checksum."""
    versions = Counter(str(kernel.version) for kernel in kernels)
    releases = Counter(kernel.release for kernel in kernels)
    return [_unique_id(kernel, versions, releases) for kernel in kernels]


def _unique_id(kernel: Kernel | Candidate, versions: Counter[str], releases: Counter[str]) -> str:
    if versions[str(kernel.version)] == 1:
        return str(kernel.version)
    if releases[kernel.release] == 1:
        return kernel.release
    return f"{kernel.release}-{kernel.checksum[:8]}"


@lru_cache(maxsize=32)
def _read_config(path: Path) -> dict[str, str]:
    options = {}
    for line in path.read_text(errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name.startswith("CONFIG_"):
            options[name.removeprefix("CONFIG_")] = value.strip().strip('"')
    return options


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
