"""The Debian source: from a series, version, release or suite to one kernel of Debian's suites."""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, cmp_to_key
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from pytest_kernelfs.errors import InfrastructureError, KernelfsError, KernelNotFound
from pytest_kernelfs.kernels.apt import AptFacts, read_apt
from pytest_kernelfs.kernels.download import UnreachableError, Web, shown
from pytest_kernelfs.kernels.index import IndexedKernel
from pytest_kernelfs.kernels.kernel import Candidate, Package
from pytest_kernelfs.kernels.mirrors import Mirrors, find_mirrors, known_suites, with_companions
from pytest_kernelfs.kernels.settings import KernelSettings
from pytest_kernelfs.kernels.signature import UnknownSignerError
from pytest_kernelfs.kernels.spec import KernelSpec, flavour_of
from pytest_kernelfs.kernels.suite import ExpiredError, Suite, SuiteReader
from pytest_kernelfs.kernels.version import KernelVersion

_THREADS = 8
_LIST = "'kernelfs kernels ls --available' lists all"
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Offer:
    """A kernel and the suite that offers it."""

    kernel: IndexedKernel
    suite: Suite

    @cached_property
    def version(self) -> KernelVersion:
        """The full upstream version."""
        return KernelVersion.from_package(self.kernel.package_version, self.kernel.release)

    @property
    def flavour(self) -> str:
        """``cloud``, ``amd64``, ``rt``, ..."""
        return flavour_of(self.kernel.release)

    def candidate(self, spec: str) -> Candidate:
        """The same as the rest of the project knows it."""
        base = self.suite.archive.uri
        packages = tuple(
            Package(name, self.kernel.package_version, f"{base}/{quote(file, safe='/+~:')}", size, sha256)
            for name, file, size, sha256 in self.kernel.files
        )
        hashes = "\n".join(sorted(package.sha256 for package in packages))
        return Candidate(
            spec=spec,
            version=self.version,
            release=self.kernel.release,
            source=f"debian {self.suite.name}",
            checksum=hashlib.sha256(hashes.encode()).hexdigest(),
            packages=packages,
        )


class DebianSource:
    """Finds kernels in Debian's suites; each suite is read at most once."""

    def __init__(self, settings: KernelSettings) -> None:
        self._settings = settings
        self._suites: dict[str, Suite | KernelfsError | None] = {}
        self._offered: dict[str, list[Offer]] = {}

    @cached_property
    def _apt(self) -> AptFacts:
        return read_apt(self._settings.cache)

    @cached_property
    def web(self) -> Web:
        """What downloads from the mirrors."""
        return Web(self._apt.proxies, self._settings.progress)

    @cached_property
    def _mirrors(self) -> Mirrors:
        return find_mirrors(self._settings, self._apt)

    @cached_property
    def _reader(self) -> SuiteReader:
        return SuiteReader(self._settings, self.web, check_valid_until=self._apt.check_valid_until)

    def find(self, spec: KernelSpec) -> Candidate:
        """The kernel that a series, version, release or suite means.

        Raises: KernelNotFound, naming what there is instead; InfrastructureError if no index can be had.
        """
        if spec.kind == "suite":
            return self._default_of(spec.value, spec.text).candidate(spec.text)
        offers = [offer for offer in self._offers(self._everywhere()) if _fits(offer, spec)]
        if spec.kind != "release":
            offers = [offer for offer in offers if offer.flavour == self._settings.flavour]
        if not offers:
            raise self._not_found(spec)
        return _newest(offers).candidate(spec.text)

    def available(self, flavour: str | None) -> list[Candidate]:
        """All kernels that can be fetched, the oldest first; ``flavour`` None means all of them."""
        offers = [offer for offer in self._offers(self._everywhere()) if flavour in (None, offer.flavour)]
        candidates = [offer.candidate(offer.kernel.release) for offer in _sorted(offers)]
        return list({(c.release, c.checksum): c for c in candidates}.values())

    @property
    def notes(self) -> list[str]:
        """What the user should know about the suites read so far."""
        states = self._suites
        stale = [state for state in states.values() if isinstance(state, Suite) and state.stale]
        failed = _failure_notes({n: state for n, state in states.items() if isinstance(state, KernelfsError)})
        if not stale:
            return failed
        oldest = min(suite.facts.checked for suite in stale)
        return [f"{stale[0].stale}: {_age(oldest)}", *failed]

    def _everywhere(self) -> Sequence[str]:
        """All suites, after they were read."""
        self._read(self._mirrors.suites)
        if not any(isinstance(state, Suite) for state in self._suites.values()):
            urls = ", ".join(shown(archive.uri) for archive in self._mirrors.archives_for("stable"))
            raise InfrastructureError(
                f"{urls} has none of Debian's suites, neither {self._mirrors.suites[0]} nor any other; "
                "is it a Debian mirror? Choose another with --kernelfs-debian-mirror URL (ini: "
                "kernelfs_debian_mirror)"
            )
        return self._mirrors.suites

    def _default_of(self, name: str, text: str) -> Offer:
        """What ``apt install linux-image-cloud-amd64`` would bring in a suite.

        That is not always the newest: security suites also carry kernels that
        are only there for those who ask for them by name.
        """
        family = with_companions(name)
        self._read(family)
        state = self._suites[name]
        if isinstance(state, KernelfsError):
            raise state
        if state is None:
            raise KernelNotFound(
                f"the mirror has no suite {name!r} (kernel spec {text!r}); known suites are "
                f"{', '.join(known_suites())}"
            )
        offers = [o for o in self._offers(family) if o.flavour == self._settings.flavour]
        chosen = [o for o in offers if o.suite.index.defaults.get(o.flavour) == o.kernel.release]
        if not offers:
            raise self._no_kernel_in(family, text)
        return _newest(chosen or offers)

    def _no_kernel_in(self, family: Sequence[str], text: str) -> KernelNotFound:
        flavours = sorted({offer.flavour for offer in self._offers(family)})
        seen = f"only the flavours {', '.join(flavours)}" if flavours else "none at all"
        return KernelNotFound(
            f"the kernel spec {text!r} asks for a kernel of flavour {self._settings.flavour!r}, but "
            f"{', '.join(family)} have {seen}; choose another flavour or suite, {_LIST}"
        )

    def _read(self, names: Sequence[str]) -> None:
        """Read suites side by side; one that cannot be had is only remembered, unless that goes for all."""
        missing = [name for name in names if name not in self._suites]
        _ = self._mirrors, self._reader  # made once, before there are threads
        at_hand = all(self._reader.is_at_hand(a, n) for n in missing for a in self._mirrors.archives_for(n))
        # Threads only cost time where nothing is waited for.
        read = [self._read_one(n) for n in missing] if at_hand else _side_by_side(self._read_one, missing)
        for name, state in zip(missing, read, strict=True):
            self._suites[name] = state
        states = [self._suites[name] for name in names]
        failures = [state for state in states if isinstance(state, KernelfsError)]
        if failures and not any(isinstance(state, Suite) for state in states):
            raise failures[0]

    def _read_one(self, name: str) -> Suite | KernelfsError | None:
        failure: KernelfsError | None = None
        for archive in self._mirrors.archives_for(name):
            try:
                suite = self._reader.read(archive, name)
            except (UnreachableError, UnknownSignerError, ExpiredError) as error:
                failure = failure or error
            else:
                if suite is not None:
                    return suite
        return failure

    def _offers(self, names: Iterable[str]) -> list[Offer]:
        return [offer for name in names for offer in self._offers_of(name)]

    def _offers_of(self, name: str) -> list[Offer]:
        suite = self._suites[name]
        if not isinstance(suite, Suite):
            return []
        if name not in self._offered:
            self._offered[name] = [Offer(kernel, suite) for kernel in suite.index.kernels]
        return self._offered[name]

    def _not_found(self, spec: KernelSpec) -> KernelfsError:
        live = [state for state in self._suites.values() if isinstance(state, Suite)]
        partial = [
            f"{release} in {suite.name} lacks {', '.join(lacking)}"
            for suite in live
            for release, lacking in suite.index.missing.items()
            if _partly_fits(release, spec, self._settings.flavour)
        ]
        if partial:
            return KernelNotFound(
                f"the kernel {spec.text!r} is in Debian's index, but not all of its packages are: "
                f"{partial[-1]}; {self._instead(spec)}"
            )
        everything = self._offers(self._mirrors.suites)
        flavours = sorted({offer.flavour for offer in everything if _fits(offer, spec)})
        if flavours:
            return KernelNotFound(
                f"the kernel {spec.text!r} has no flavour {self._settings.flavour!r}, only "
                f"{', '.join(flavours)}; choose one of those, or another kernel: {self._instead(spec)}"
            )
        return KernelNotFound(
            f"no suite of Debian has the kernel {spec.text!r}; {self._instead(spec)}; others can be given as "
            "a path to an image, a built tree or a .deb"
        )

    def _instead(self, spec: KernelSpec) -> str:
        flavour = flavour_of(spec.value) if spec.kind == "release" else self._settings.flavour
        offers = self._offers(self._mirrors.suites)
        near = _nearest([offer for offer in offers if offer.flavour == flavour], spec)
        if not near:
            return f"of the flavour {flavour or spec.value!r} there are none; {_LIST}"
        return f"the nearest are {', '.join(near)}; {_LIST}"


def fetch_packages(candidate: Candidate, folder: Path, web: Web) -> list[Path]:
    """Download the candidate's packages into ``folder``, verified against the signed index.

    Raises: InfrastructureError if one cannot be had, or is not what the index promises.
    """
    files = []
    for package in candidate.packages:
        file = folder / f"{package.name}.deb"
        what = f"the package {package.name}"
        web.download(package.url, file, size=package.size, sha256=package.sha256, what=what)
        files.append(file)
    return files


def _fits(offer: Offer, spec: KernelSpec) -> bool:
    if spec.kind == "release":
        return offer.kernel.release == spec.value
    if spec.kind == "series":
        return offer.version.series == KernelVersion.parse(spec.value).series
    return offer.version == KernelVersion.parse(spec.value)


def _partly_fits(release: str, spec: KernelSpec, flavour: str) -> bool:
    if spec.kind == "release":
        return release == spec.value
    version, wanted = KernelVersion.from_release(release), KernelVersion.parse(spec.value)
    same = version.series == wanted.series if spec.kind == "series" else version == wanted
    return same and flavour_of(release) == flavour


def _nearest(offers: Sequence[Offer], spec: KernelSpec) -> list[str]:
    """Up to three names of what lies around the wanted version."""
    offers = _sorted(offers)
    wanted = KernelVersion.from_release(spec.value)
    if spec.kind == "release":
        # Debian's old releases do not tell the stable level: the newest of the series is the best guess.
        same = [offer.kernel.release for offer in offers if offer.version.series == wanted.series]
        if same:
            return same[-3:]
    if spec.kind == "series":  # the newest of each series: its neighbours would be all of one
        offers = list({offer.version.series: offer for offer in offers}.values())
    distinct = list({offer.version: offer for offer in offers}.values())
    place = bisect_left([offer.version for offer in distinct], wanted)
    start = max(0, min(place - 1, len(distinct) - 3))
    around = distinct[start : start + 3]
    return [offer.kernel.release if spec.kind == "release" else str(offer.version) for offer in around]


def _newest(offers: Sequence[Offer]) -> Offer:
    newest = max(offer.version for offer in offers)
    return _sorted([offer for offer in offers if offer.version == newest])[-1]


def _sorted(offers: Sequence[Offer]) -> list[Offer]:
    """The oldest first: by version, then by Debian's revision, which puts backports below the original."""
    if len(offers) < 2:
        return list(offers)
    from debian.debian_support import version_compare

    revision = cmp_to_key(cast("Callable[[str, str], int]", version_compare))

    def key(offer: Offer) -> Any:
        return offer.version, revision(offer.kernel.package_version), offer.kernel.release

    return sorted(offers, key=key)


def _side_by_side(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    if len(items) < 2:
        return [function(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def _failure_notes(failures: Mapping[str, KernelfsError]) -> list[str]:
    """One note for all suites that failed for the same reason: a mirror that is down fails for each."""
    groups: dict[str, list[str]] = {}
    for name, error in failures.items():
        reason = error.reason if isinstance(error, UnreachableError) else str(error)
        groups.setdefault(reason, []).append(name)
    return [
        f"left out the suite{'s' * (len(names) > 1)} {', '.join(names)}: {failures[names[0]]}"
        for names in groups.values()
    ]


def _age(checked: float) -> str:
    day = time.strftime("%Y-%m-%d", time.gmtime(checked))
    hours = max(0, round((time.time() - checked) / 3600))
    return f"the package index is from {day}, {hours} hours old"
