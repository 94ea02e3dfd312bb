"""The grammar of kernel specs: what a user types after ``--kernel``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels.version import KernelVersion

Kind = Literal["series", "version", "release", "suite", "path", "deb"]

GRAMMAR = (
    "write a series (6.1), a version (6.1.176, 7.3-rc7), a release (6.1.0-50-amd64), a suite "
    "(debian:bookworm), or a path to an image, a built tree or a .deb (./bzImage, ./linux, ./foo.deb)"
)

_SERIES = re.compile(r"v?[0-9]+\.[0-9]+\Z")
_VERSION = re.compile(r"v?[0-9]+\.[0-9]+(?:\.[0-9]+)?(?:[-~]rc[0-9]+)?\Z")
_RELEASE = re.compile(r"[0-9]+\.[0-9]+[0-9A-Za-z.+~_-]*[0-9A-Za-z+]\Z")
_SUITE = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")
_FLAVOUR = re.compile(r"-(?:([a-z]+)-)?amd64\Z")
_OPTION = re.compile(r":(modules|config)=")
# Debian's file names hold plus signs themselves (6.12.117+deb13), so only one after .deb joins files.
_DEB_JOINT = re.compile(r"(?<=\.deb)\+")


@dataclass(frozen=True)
class KernelSpec:
    """One parsed spec: ``text`` as typed, ``value`` without prefix; paths only for the kinds path and deb."""

    text: str
    kind: Kind
    value: str
    paths: tuple[Path, ...] = ()
    modules: Path | None = None
    config: Path | None = None


def flavour_of(release: str) -> str:
    """``cloud``, ``rt``, ... or ``amd64`` for the general kernel; empty if the release is not Debian's."""
    found = _FLAVOUR.search(release)
    return "" if found is None else found[1] or "amd64"


def parse_specs(texts: Iterable[str]) -> list[KernelSpec]:
    """Parse specs, each possibly several joined by commas or newlines; the order is kept.

    Raises: UsageError for a malformed spec, naming it and the grammar.
    """
    return [_parse(part) for text in texts for part in _split(text)]


def _split(text: str) -> Sequence[str]:
    if "," in text and Path(text).exists():
        return [text]  # a file whose name has a comma
    parts = [part.strip() for part in re.split(r"[,\n]", text)]
    found = [part for part in parts if part]
    if not found:
        raise UsageError(f"the kernel spec {text!r} is empty; {GRAMMAR}")
    return found


def _parse(text: str) -> KernelSpec:
    if text.startswith("debian:"):
        return _parse_debian(text)
    if _looks_like_path(text):
        return _parse_path(text)
    return _parse_number(text, text)


def _parse_number(text: str, value: str) -> KernelSpec:
    bare = value.removeprefix("v")
    if _SERIES.match(value):
        return KernelSpec(text, "series", bare)
    if _VERSION.match(value):
        return KernelSpec(text, "version", str(KernelVersion.parse(value)))
    if _RELEASE.match(value):
        return KernelSpec(text, "release", value)
    raise UsageError(f"the kernel spec {text!r} is malformed; {GRAMMAR}")


def _parse_debian(text: str) -> KernelSpec:
    value = text.removeprefix("debian:")
    if _SUITE.match(value):
        return KernelSpec(text, "suite", value)
    if value[:1].isdigit():
        return _parse_number(text, value)
    raise UsageError(
        f"the kernel spec {text!r} names no Debian suite; write it like debian:bookworm, "
        "debian:trixie-backports or debian:sid"
    )


def _looks_like_path(text: str) -> bool:
    first = _OPTION.split(text)[0]
    if "/" in first or first.startswith("~") or first.endswith(".deb"):
        return True
    # A folder that happens to be called 6.1 must not hide the series; ./6.1 names it.
    return not (_VERSION.match(first) or _RELEASE.match(first)) and Path(first).exists()


def _parse_path(text: str) -> KernelSpec:
    first, *rest = _OPTION.split(text)
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    if not first or len(options) * 2 != len(rest) or not all(options.values()):
        raise UsageError(
            f"the kernel spec {text!r} is malformed; write a path with options like "
            "./bzImage:modules=DIR or ./bzImage:modules=DIR:config=FILE"
        )
    if first.endswith(".deb"):
        if options:
            raise UsageError(
                f"the kernel spec {text!r} is malformed; join packages with +, like image.deb+modules.deb"
            )
        return KernelSpec(text, "deb", first, tuple(_path(part) for part in _DEB_JOINT.split(first)))
    modules, config = _option(options, "modules"), _option(options, "config")
    return KernelSpec(text, "path", first, (_path(first),), modules, config)


def _option(options: dict[str, str], name: str) -> Path | None:
    return _path(options[name]) if name in options else None


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
