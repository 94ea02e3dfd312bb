"""What the outside decides about kernels: where the cache is, which mirror, which flavour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_kernelfs.cache import Cache


class Progress(Protocol):
    """What is called while something is downloaded, from any thread.

    ``what`` names the file, ``done`` and ``total`` are bytes; the last call
    for a file has ``done == total``.
    """

    def __call__(self, what: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class KernelSettings:
    """``index_max_age`` is in seconds: within it a package index is used without asking the mirror.

    ``debian_mirror`` is a URL (http, https or file) that replaces the mirror
    of the host's apt, ``debian_keyring`` a keyring that replaces Debian's.
    ``flavour`` is ``cloud``, ``amd64`` (the general one) or ``rt``.
    """

    cache: Cache
    debian_mirror: str | None = None
    debian_keyring: Path | None = None
    flavour: str = "cloud"
    offline: bool = False
    index_max_age: float = 86400.0
    progress: Progress | None = None
