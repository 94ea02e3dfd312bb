"""One suite of a Debian archive: its signed Release facts and its index, through the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.download import MissingFileError, UnreachableError, Web, shown
from pytest_kernelfs.kernels.index import FORMAT, Index, read_index
from pytest_kernelfs.kernels.settings import KernelSettings
from pytest_kernelfs.kernels.signature import choose_keyring, verified_text

_RELEASE_LIMIT = 4 << 20
_ORIGINS = ("Debian", "Debian Backports")
_INDEX = "main/binary-amd64/Packages"

Status = Literal["live", "absent", "foreign"]


@dataclass(frozen=True)
class Archive:
    """A place that has suites under ``dists/``; ``keyring`` is the one its source names, if any."""

    uri: str
    keyring: Path | None = None


@dataclass(frozen=True)
class SuiteFacts:
    """What an InRelease said when it was last asked for; times are seconds since the epoch.

    ``absent``: the archive has no such suite. ``foreign``: it has, but it is
    not Debian's. The rest is set for ``live`` ones only: the index file's
    ``path`` below the suite's folder, its size in bytes and its hash.
    """

    status: Status
    checked: float
    valid_until: float | None = None
    path: str = ""
    size: int = 0
    sha256: str = ""
    by_hash: bool = False

    def is_expired(self) -> bool:
        """Whether it was past its end already when it was fetched."""
        return self.valid_until is not None and self.valid_until < self.checked


@dataclass(frozen=True)
class Suite:
    """A suite that can be used. ``stale`` says why its facts are older than allowed, if they are."""

    archive: Archive
    name: str
    facts: SuiteFacts
    index: Index
    stale: str | None = None


class SuiteReader:
    """Reads suites, from the network only if the cache is not fresh enough."""

    def __init__(self, settings: KernelSettings, web: Web, *, check_valid_until: bool) -> None:
        self._settings = settings
        self._cache = settings.cache
        self._web = web
        self._check_valid_until = check_valid_until

    def read(self, archive: Archive, name: str) -> Suite | None:
        """The suite, or None if the archive has none of that name (or not Debian's).

        Raises: UnreachableError if it can neither be fetched nor found in the cache; UnknownSignerError, or
        ExpiredError, if it cannot be trusted; InfrastructureError for anything else that is wrong with it.
        """
        facts, stale = self._facts(archive, name)
        if facts.status != "live":
            return None
        if self._check_valid_until and facts.is_expired():
            raise ExpiredError(
                f"the package index of {name} at {shown(archive.uri)} expired at "
                f"{_when(facts.valid_until or 0)}: the mirror is out of date; choose another with "
                "--kernelfs-debian-mirror URL, or set apt's Acquire::Check-Valid-Until to false"
            )
        return Suite(archive, name, facts, self._index(archive, name, facts), stale)

    def is_at_hand(self, archive: Archive, name: str) -> bool:
        """Whether ``read`` would find all it needs in the cache, fresh enough."""
        known = _load(self._record(archive, name))
        if known is None or not self._is_fresh(known):
            return False
        return known.status != "live" or self._cache.path("indexes", f"{known.sha256}-{FORMAT}").is_dir()

    def _is_fresh(self, facts: SuiteFacts) -> bool:
        # A clock that was set back must not keep an index in use for years.
        return 0 <= time.time() - facts.checked < self._settings.index_max_age

    def _facts(self, archive: Archive, name: str) -> tuple[SuiteFacts, str | None]:
        record = self._record(archive, name)
        known = _load(record)
        if known and self._is_fresh(known):
            return known, None
        if self._settings.offline:
            if known is None:
                raise UnreachableError(
                    f"offline, and the package index of {name} was never fetched; run once with the network, "
                    "or give a kernel as a path or a .deb",
                    "offline",
                )
            return known, "offline"
        try:
            facts = self._fetch_facts(archive, name)
        except UnreachableError as error:
            if known is None:
                raise
            return known, f"cannot reach {shown(archive.uri)} ({error.reason})"
        with contextlib.suppress(InfrastructureError):  # a read-only cache stays usable
            self._cache.write_text(record, json.dumps(asdict(facts)))
        return facts, None

    def _record(self, archive: Archive, name: str) -> Path:
        # The keyring is part of the name: what one keyring vouched for says nothing about another.
        keyring = self._settings.debian_keyring or archive.keyring or ""
        key = hashlib.sha256(f"{archive.uri}\n{name}\n{keyring}".encode()).hexdigest()[:32]
        return self._cache.root / "suites" / f"{key}.json"

    def _fetch_facts(self, archive: Archive, name: str) -> SuiteFacts:
        url = f"{archive.uri}/dists/{name}/InRelease"
        now = time.time()
        try:
            signed = self._web.read(url, _RELEASE_LIMIT)
        except MissingFileError:
            return SuiteFacts("absent", now)
        keyring = choose_keyring(self._settings.debian_keyring, archive.keyring)
        text = verified_text(signed, keyring, shown(url))
        return _facts_from(text, name, now, shown(url))

    def _index(self, archive: Archive, name: str, facts: SuiteFacts) -> Index:
        def build(folder: Path) -> None:
            packed = folder / Path(facts.path).name
            self._fetch_index(archive, name, facts, packed)
            (folder / "kernels.json").write_text(read_index(packed).to_json())
            packed.unlink()

        key = f"{facts.sha256}-{FORMAT}"
        if self._settings.offline and not self._cache.path("indexes", key).is_dir():
            raise UnreachableError(
                f"offline, and the package index of {name} is not in the cache; run once with the network",
                "offline",
            )
        return Index.from_json((self._cache.entry("indexes", key, build) / "kernels.json").read_text())

    def _fetch_index(self, archive: Archive, name: str, facts: SuiteFacts, target: Path) -> None:
        base = f"{archive.uri}/dists/{name}"
        plain = f"{base}/{facts.path}"
        hashed = f"{base}/{Path(facts.path).parent}/by-hash/SHA256/{facts.sha256}"
        what = f"the package index of {name}"
        for url in (hashed, plain) if facts.by_hash else (plain,):
            try:
                self._web.download(url, target, size=facts.size, sha256=facts.sha256, what=what)
                return
            except MissingFileError:
                continue
        raise InfrastructureError(
            f"{what} is promised by its InRelease, but {shown(plain)} is not there; the mirror may be "
            "mid-update: try again, or choose another with --kernelfs-debian-mirror URL"
        )


class ExpiredError(InfrastructureError):
    """A suite is past its Valid-Until, and apt is told to mind that."""


def _facts_from(text: str, name: str, now: float, url: str) -> SuiteFacts:
    fields = _fields(text)
    if fields.get("Origin") not in _ORIGINS:
        return SuiteFacts("foreign", now)
    # A mirror must not serve one suite, however well signed, in another's place.
    if name not in (fields.get("Suite"), fields.get("Codename")):
        raise InfrastructureError(
            f"{url} is the InRelease of {fields.get('Suite')} ({fields.get('Codename')}), not of {name}; "
            "choose another mirror with --kernelfs-debian-mirror URL"
        )
    files = _hashes(fields.get("SHA256", ""))
    for path in (f"{_INDEX}.xz", f"{_INDEX}.gz"):
        if path in files:
            sha256, size = files[path]
            by_hash = fields.get("Acquire-By-Hash") == "yes"
            return SuiteFacts("live", now, _seconds(fields.get("Valid-Until")), path, size, sha256, by_hash)
    return SuiteFacts("absent", now)


def _fields(text: str) -> dict[str, str]:
    """The fields of a Release file; continuation lines are kept as they are."""
    return {
        found[1]: found[2].strip()
        for found in re.finditer(r"^([A-Za-z0-9-]+):(.*(?:\n[ \t].*)*)", text, re.MULTILINE)
    }


def _hashes(block: str) -> Mapping[str, tuple[str, int]]:
    line = r"^\s*([0-9a-f]{64})\s+([0-9]+)\s+(main/binary-amd64/Packages\S*)$"
    found = re.findall(line, block, re.MULTILINE)
    return {path: (sha256, int(size)) for sha256, size, path in found}


def _seconds(date: str | None) -> float | None:
    from email.utils import parsedate_to_datetime

    if date is None:
        return None
    try:
        return parsedate_to_datetime(date.replace(" UTC", " +0000")).timestamp()
    except ValueError:
        return None


def _load(record: Path) -> SuiteFacts | None:
    try:
        return SuiteFacts(**json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
