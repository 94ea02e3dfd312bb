"""Which archives serve which of Debian's suites on this host."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels.apt import AptFacts
from pytest_kernelfs.kernels.settings import KernelSettings
from pytest_kernelfs.kernels.suite import Archive

CODENAMES = ("bullseye", "bookworm", "trixie", "forky", "duke")
ROLLING = ("sid", "experimental")
_ALIASES = ("oldoldstable", "oldstable", "stable", "testing", "unstable")
_VARIANTS = ("-security", "-updates", "-backports")


def known_suites() -> list[str]:
    """Every suite of Debian's that may be live, whether or not the host uses it."""
    return [f"{name}{variant}" for name in CODENAMES for variant in ("", *_VARIANTS)] + list(ROLLING)


def with_companions(suite: str) -> list[str]:
    """A suite and those that update it: bookworm, bookworm-security and bookworm-updates."""
    if suite in (*ROLLING, "unstable") or suite.endswith(_VARIANTS):
        return [suite]
    return [suite, f"{suite}-security", f"{suite}-updates"]


class Mirrors:
    """The archives to ask, in order; suites named ``-security`` have archives of their own.

    ``suites`` are all that may be live: those we know of and those the host uses.
    """

    def __init__(
        self, main: Sequence[Archive], security: Sequence[Archive], configured: Iterable[str] = ()
    ) -> None:
        self._main = tuple(main)
        self._security = tuple(security)
        # An alias such as stable only repeats a suite that is listed by its code name.
        own = (suite for suite in configured if not suite.startswith(_ALIASES))
        self.suites = tuple(dict.fromkeys((*known_suites(), *own)))

    def archives_for(self, suite: str) -> tuple[Archive, ...]:
        """The archives that may have the suite, the likeliest first."""
        return self._security if suite.endswith("-security") else self._main


def find_mirrors(settings: KernelSettings, apt: AptFacts) -> Mirrors:
    """The mirror of the settings, else those of the host's apt.

    Raises: UsageError if there is none, or the one given is no URL.
    """
    if settings.debian_mirror is not None:
        return _given(settings.debian_mirror, settings.debian_keyring)
    ours = [source for source in apt.sources if _is_debian(source.suite)]
    main = _unique(Archive(s.uri, s.keyring) for s in ours if not s.suite.endswith("-security"))
    security = _unique(Archive(s.uri, s.keyring) for s in ours if s.suite.endswith("-security"))
    if not main and security:
        main = [Archive(_sibling(a.uri, back=True), a.keyring) for a in security]
    if not main:
        raise UsageError(
            "this host's apt has no Debian mirror to get kernels from; set --kernelfs-debian-mirror URL "
            "(ini: kernelfs_debian_mirror), or give kernels as paths or .deb files"
        )
    siblings = [Archive(_sibling(a.uri), a.keyring) for a in main]
    return Mirrors(main, security or siblings, (source.suite for source in ours))


def _given(mirror: str, keyring: Path | None) -> Mirrors:
    uri = mirror.rstrip("/")
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.scheme == "file"):
        raise UsageError(
            f"the Debian mirror {mirror!r} is no URL; write it like http://mirror.example/debian or "
            "file:///srv/debian"
        )
    return Mirrors([Archive(uri, keyring)], [Archive(_sibling(uri), keyring)])


def _sibling(uri: str, *, back: bool = False) -> str:
    """Mirrors keep the security archive beside the main one: .../debian and .../debian-security."""
    return uri.removesuffix("-security") if back else f"{uri}-security"


def _is_debian(suite: str) -> bool:
    """Whether the name can be one of Debian's: third parties use main and their own suites too."""
    base = re.sub(r"-(?:security|updates|backports|proposed-updates)\Z", "", suite)
    return base in (*CODENAMES, *ROLLING, *_ALIASES)


def _unique(archives: Iterable[Archive]) -> list[Archive]:
    return list({archive.uri: archive for archive in archives}.values())
