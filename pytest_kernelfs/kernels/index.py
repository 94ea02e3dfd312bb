"""A Debian package index, reduced to the kernels in it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cmp_to_key
from pathlib import Path
from typing import IO, Any, cast

from pytest_kernelfs.errors import InfrastructureError

# Raised whenever the reduced form changes, so that no old one is read from a cache.
FORMAT = 2

# Debug symbols (-dbg) and unsigned images (-unsigned) end otherwise, or are named linux-binary-unsigned-.
# A literal beginning rather than "^" lets the search skip through 50 MB.
_WANTED = re.compile(rb"\nPackage: linux-(?:image|binary|modules|base)-(?!unsigned-)\S*amd64\n")
_NAME = re.compile(r"linux-(image|binary|modules|base)-(.+)\Z")
_META = re.compile(r"linux-image-(?:([a-z]+)-)?amd64\Z")
_DEPENDS_ON_IMAGE = re.compile(r"\blinux-image-([0-9][^ ,|(]*)")
_CHUNK = 4 << 20
_SPLIT_PARTS = ("binary", "modules", "base")


@dataclass(frozen=True)
class IndexedKernel:
    """One kernel of an index; per package ``files`` has name, file name, size in bytes and sha256."""

    release: str
    package_version: str
    files: tuple[tuple[str, str, int, str], ...]


@dataclass(frozen=True)
class Index:
    """What an index has to offer, the oldest first.

    ``missing`` maps the releases that are there in part only to the packages
    they lack; ``defaults`` maps flavours to the release that Debian's own
    meta-package installs.
    """

    kernels: tuple[IndexedKernel, ...] = ()
    missing: dict[str, list[str]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The index as text, for the cache."""
        rows = [[kernel.release, kernel.package_version, kernel.files] for kernel in self.kernels]
        return json.dumps({"kernels": rows, "missing": self.missing, "defaults": self.defaults})

    @classmethod
    def from_json(cls, text: str) -> Index:
        """The reverse of ``to_json``."""
        data = json.loads(text)
        kernels = (
            IndexedKernel(release, version, tuple((name, file, size, sha) for name, file, size, sha in files))
            for release, version, files in data["kernels"]
        )
        return cls(tuple(kernels), data["missing"], data["defaults"])


def read_index(path: Path) -> Index:
    """Reduce a compressed Packages file (xz or gz by its name).

    Raises: InfrastructureError if it cannot be unpacked or read.
    """
    import lzma
    import zlib

    try:
        with _open(path) as file:
            return reduce_stanzas(_parse(stanza) for stanza in _stanzas(file))
    except (lzma.LZMAError, zlib.error, EOFError, ValueError, KeyError) as error:
        raise InfrastructureError(
            f"the package index {path.name} cannot be read ({error}); try again, or choose another mirror "
            "with --kernelfs-debian-mirror URL"
        ) from error


def reduce_stanzas(stanzas: Iterable[Mapping[str, str]]) -> Index:
    """The kernels among the stanzas of wanted packages."""
    groups: dict[tuple[str, str], dict[str, Mapping[str, str]]] = defaultdict(dict)
    defaults: dict[str, str] = {}
    for stanza in stanzas:
        name = _NAME.match(stanza["Package"])
        target = _DEPENDS_ON_IMAGE.search(stanza.get("Depends", ""))
        meta = _META.match(stanza["Package"])
        if meta and target:
            defaults[meta[1] or "amd64"] = target[1]
        # Other meta-packages (linux-image-6.12-amd64) also do nothing but depend on an image.
        elif name and name[2][0].isdigit() and not target:
            groups[name[2], stanza["Version"]][name[1]] = stanza
    return _sorted_out(groups, defaults)


def _sorted_out(
    groups: Mapping[tuple[str, str], Mapping[str, Mapping[str, str]]], defaults: dict[str, str]
) -> Index:
    complete: dict[str, IndexedKernel] = {}
    missing: dict[str, list[str]] = {}
    for (release, version), parts in sorted(groups.items(), key=_by_version):
        lacking = _lacking(release, parts)
        if lacking:
            missing[release] = lacking
        else:
            files = tuple(_file(parts[kind]) for kind in _needed(parts))
            complete[release] = IndexedKernel(release, version, files)
    kernels = sorted(complete.values(), key=lambda kernel: _version_key(kernel.package_version))
    partial = {release: what for release, what in missing.items() if release not in complete}
    return Index(tuple(kernels), partial, defaults)


def _is_split(parts: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether image, modules and base files are packages of their own (Debian's way from 6.19 on)."""
    image = parts.get("image")
    return image is None or len(parts) > 1 or "linux-binary-" in image.get("Depends", "")


def _needed(parts: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    return _SPLIT_PARTS if _is_split(parts) else ("image",)


def _lacking(release: str, parts: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [f"linux-{kind}-{release}" for kind in _needed(parts) if kind not in parts]


def _file(stanza: Mapping[str, str]) -> tuple[str, str, int, str]:
    return stanza["Package"], stanza["Filename"], int(stanza["Size"]), stanza["SHA256"].lower()


def _by_version(item: tuple[tuple[str, str], object]) -> Any:
    return _version_key(item[0][1])


def _version_key(version: str) -> Any:
    from debian.debian_support import version_compare

    return cmp_to_key(cast("Callable[[str, str], int]", version_compare))(version)


def _parse(stanza: bytes) -> Mapping[str, str]:
    from debian.deb822 import Deb822

    return cast("Mapping[str, str]", Deb822(stanza))


def _open(path: Path) -> IO[bytes]:
    import gzip
    import lzma

    if path.suffix == ".xz":
        return lzma.open(path)
    return cast("IO[bytes]", gzip.open(path))


def _stanzas(file: IO[bytes]) -> Iterator[bytes]:
    """The wanted stanzas; of the 50 MB of an index nearly all is about other packages."""
    rest = b""
    while chunk := file.read(_CHUNK):
        whole, blank, rest = (rest + chunk).rpartition(b"\n\n")
        if blank:
            yield from _wanted_in(whole)
    yield from _wanted_in(rest)


def _wanted_in(text: bytes) -> Iterator[bytes]:
    framed = b"\n\n" + text + b"\n\n"
    for found in _WANTED.finditer(framed):
        start = framed.rindex(b"\n\n", 0, found.start() + 1)
        yield framed[start + 2 : framed.index(b"\n\n", found.end() - 1)]
