"""From specs to candidates, and from candidates to kernels on this host."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.kernel import Candidate, Kernel
from pytest_kernelfs.kernels.settings import KernelSettings
from pytest_kernelfs.kernels.spec import KernelSpec, flavour_of, parse_specs
from pytest_kernelfs.kernels.store import Store

if TYPE_CHECKING:
    from pytest_kernelfs.kernels.debian import DebianSource


class Resolver:
    """Finds and fetches kernels. Making one costs nothing; the network is touched only when it must be."""

    def __init__(self, settings: KernelSettings) -> None:
        self.settings = settings
        self._store = Store(settings.cache)

    @cached_property
    def _debian(self) -> DebianSource:
        from pytest_kernelfs.kernels.debian import DebianSource

        return DebianSource(self.settings)

    @property
    def notes(self) -> list[str]:
        """What the user should know about what was resolved so far, e.g. that an index is old."""
        return self._debian.notes

    def resolve(self, specs: Sequence[str]) -> list[Candidate]:
        """What the specs mean, in their order; the same kernel is listed once.

        Raises: UsageError for a malformed spec, KernelNotFound for one that names nothing to be had,
        InfrastructureError if the package indexes cannot be had.
        """
        candidates = [self._find(spec) for spec in parse_specs(specs)]
        first: dict[tuple[str, str], Candidate] = {}
        for candidate in candidates:
            first.setdefault((candidate.release, candidate.checksum), candidate)
        return list(first.values())

    def default(self) -> Candidate:
        """The kernel of the host's own Debian release; on other hosts that of Debian's stable release.

        Raises: as ``resolve``.
        """
        from pytest_kernelfs.kernels.host import host_suite

        suite = host_suite()
        return self._debian.find(KernelSpec(f"debian:{suite}", "suite", suite))

    def available(self, *, all_flavours: bool = False) -> list[Candidate]:
        """Every kernel that Debian's suites offer, the oldest first; only of the set flavour by default.

        Raises: UsageError if there is no mirror, InfrastructureError if the indexes cannot be had.
        """
        return self._debian.available(None if all_flavours else self.settings.flavour)

    def fetch(self, candidate: Candidate) -> Kernel:
        """The candidate's kernel, from the cache or from where it comes from.

        Several processes may ask for the same one: it is downloaded once.

        Raises: InfrastructureError if it cannot be downloaded, verified, unpacked or stored;
        ProviderUnavailable if the host lacks a program for that.
        """
        kernel = self._store.get(candidate.checksum)
        if kernel is not None:
            return kernel
        return self._store.build(candidate, lambda folder: self._fill(candidate, folder))

    def cached(self) -> list[Kernel]:
        """The kernels in the cache, the oldest version first."""
        return self._store.all()

    def remove(self, kernel: Kernel) -> int:
        """Remove a kernel from the cache; returns the bytes freed.

        Raises: InfrastructureError if the cache cannot be written.
        """
        return self._store.remove(kernel)

    def prune(self, keep: Collection[str] = (), *, unused_for: float = 0.0) -> list[Kernel]:
        """Remove the kernels that were not used for ``unused_for`` seconds; returns them.

        ``keep`` holds checksums, releases or versions that stay in any case.

        Raises: InfrastructureError if the cache cannot be written.
        """
        return self._store.prune(keep, unused_for)

    def _find(self, spec: KernelSpec) -> Candidate:
        if spec.kind in ("path", "deb"):
            from pytest_kernelfs.kernels.local import find_local

            return find_local(spec)
        return self._find_cached(spec) or self._debian.find(spec)

    def _find_cached(self, spec: KernelSpec) -> Candidate | None:
        """A kernel that is here already, if the spec is so exact that no index could tell better."""
        if spec.kind not in ("release", "version"):
            return None
        for kernel in reversed(self.cached()):
            if kernel.source.startswith("debian ") and _is_exactly(kernel, spec, self.settings.flavour):
                return Candidate(spec.text, kernel.version, kernel.release, kernel.source, kernel.checksum)
        return None

    def _fill(self, candidate: Candidate, folder: Path) -> Path | None:
        if candidate.local is None:
            self._download(candidate, folder)
            return None
        from pytest_kernelfs.kernels.local import fill_from_local

        return fill_from_local(candidate.local, candidate.release, folder)

    def _download(self, candidate: Candidate, folder: Path) -> None:
        if self.settings.offline or not candidate.packages:
            why = "offline" if self.settings.offline else "it was removed meanwhile"
            raise InfrastructureError(
                f"the kernel {candidate.release} is not in the cache ({why}); run once with the network, or "
                f"'kernelfs kernels fetch {candidate.release}'"
            )
        from pytest_kernelfs.kernels.deb import unpack_kernel
        from pytest_kernelfs.kernels.debian import fetch_packages

        packages = folder / "packages"
        packages.mkdir()
        for deb in fetch_packages(candidate, packages, self._debian.web):
            unpack_kernel(deb, candidate.release, folder)
        shutil.rmtree(packages)


def _is_exactly(kernel: Kernel, spec: KernelSpec, flavour: str) -> bool:
    if spec.kind == "release":
        return kernel.release == spec.value
    return str(kernel.version) == spec.value and flavour_of(kernel.release) == flavour
