"""One test run: its kernels, resolved and fetched once, its machines, its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_kernelfs.config import Config
from pytest_kernelfs.errors import KernelfsError, UsageError

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate, Kernel, Resolver
    from pytest_kernelfs.kernels.settings import Progress
    from pytest_kernelfs.machines.machine import Machine, MachineSpec, MakeProvider, Provider, Saved
    from pytest_kernelfs.machines.pool import MachinePool
    from pytest_kernelfs.machines.shares import Share
    from pytest_kernelfs.report.results import ResultTable


class KernelsUnresolved(KernelfsError):
    """The kernels of the run could not be resolved; every test that needs one ends in this error."""


@dataclass(frozen=True)
class Upcoming:
    """A test that comes soon, by its kernel and the size of machine it wants."""

    candidate: Candidate
    spec: MachineSpec
    same_module: bool


class Run:
    """What the plugin keeps for a run. All is made on first use: most runs of most suites need nothing.

    ``choose`` finds what makes the machine provider. ``handed_down`` is what the controller of an xdist run
    resolved for its workers, which have the ``name`` of the run in common.
    """

    def __init__(
        self,
        config: Config,
        choose: Callable[[], MakeProvider],
        handed_down: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        self.config = config
        self._name = name
        self._choose = choose
        self._handed_down = handed_down or {}
        self._kernels: dict[str, Kernel] = {}
        self._pool: MachinePool | None = None

    @cached_property
    def resolver(self) -> Resolver:
        from pytest_kernelfs.cache import Cache
        from pytest_kernelfs.kernels import KernelSettings, Resolver

        config = self.config
        return Resolver(
            KernelSettings(
                cache=Cache(config.cache_root),
                debian_mirror=config.debian_mirror,
                debian_keyring=config.debian_keyring,
                flavour=config.flavour,
                offline=config.offline,
                progress=self._show_progress,
            )
        )

    _progress: Progress | None = None

    def _show_progress(self, what: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(what, done, total)

    def resolve(self) -> list[Candidate]:
        """The kernels of this run.

        Raises: UsageError, KernelNotFound, InfrastructureError; the same again when asked again.
        """
        if isinstance(self._resolved, KernelfsError):
            raise self._resolved
        return self._resolved

    @cached_property
    def _resolved(self) -> list[Candidate] | KernelfsError:
        from pytest_kernelfs.kernels import Candidate, own_candidate

        if "error" in self._handed_down:
            return KernelsUnresolved(self._handed_down["error"])
        if "candidates" in self._handed_down:
            return [Candidate.from_dict(data) for data in self._handed_down["candidates"]]
        try:
            own = self._own_kernel
            if own is not None:
                return [own_candidate(own, self.config.specs, self.config.provider)]
            return (
                self.resolver.resolve(self.config.specs) if self.config.specs else [self.resolver.default()]
            )
        except KernelfsError as error:
            return error

    @cached_property
    def _own_kernel(self) -> Kernel | None:
        """What the machines run whatever is asked for. Raises: as the provider's ``own_kernel``."""
        return self.provider.own_kernel()

    @property
    def resolved_already(self) -> bool:
        """Whether anything has asked for the kernels yet."""
        return "_resolved" in self.__dict__

    def hand_down(self) -> dict[str, Any]:
        """What a worker of xdist needs to know of the kernels; nothing if none were named."""
        if not self.config.specs and not self.resolved_already:
            return {}
        try:
            return {"candidates": [candidate.to_dict() for candidate in self.resolve()]}
        except KernelfsError as error:
            return {"error": str(error)}

    @cached_property
    def ids(self) -> dict[str, Candidate]:
        """Parameter id -> candidate, in the order of the specs. Raises: as ``resolve``."""
        from pytest_kernelfs.kernels import unique_ids

        candidates = self.resolve()
        return dict(zip(unique_ids(candidates), candidates, strict=True))

    def kernel(self, candidate: Candidate) -> Kernel:
        """The fetched kernel. Raises: InfrastructureError, ProviderUnavailable."""
        if candidate.checksum not in self._kernels:
            self._kernels[candidate.checksum] = self._own_kernel or self.resolver.fetch(candidate)
        return self._kernels[candidate.checksum]

    def fetch_all(self, candidates: Sequence[Candidate], progress: Progress | None) -> None:
        """Fetch these kernels and settle the accelerator, before any test waits for it.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        self._progress = progress
        try:
            self.provider.describe()
            for candidate in candidates:
                self.provider.prove(self.kernel(candidate))
        finally:
            self._progress = None

    @cached_property
    def provider(self) -> Provider:
        from pytest_kernelfs.machines.machine import Settings

        config = self.config
        settings = Settings(
            cache_root=config.cache_root,
            boot_timeout=config.boot_timeout,
            accel=config.accel,
            max_vms=config.max_vms,
            cache_size=config.cache_size,
            image=config.image,
            image_partition=config.image_partition,
            run=self._name,
        )
        provider = self._choose()(settings)
        if not self.shares:
            return provider
        from pytest_kernelfs.machines.sharing import SharingProvider

        return SharingProvider(provider, self.shares)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """The folders that every machine gets a copy of. Raises: UsageError."""
        if not self.config.share:
            return ()
        from pytest_kernelfs.machines.shares import parse_shares

        return parse_shares(self.config.share)

    def check_provider(self) -> None:
        """Raises: UsageError if nobody offers the provider that was asked for, or a share is none."""
        self._choose()
        self.shares  # noqa: B018  (it is what checks them)

    @property
    def isolation(self) -> str:
        """Which tests share a machine, unless a marker says otherwise."""
        return self.config.isolation or self.provider.isolation

    @property
    def pool(self) -> MachinePool:
        if self._pool is None:
            from pytest_kernelfs.machines.pool import MachinePool

            self._pool = MachinePool(self.provider)
        return self._pool

    def power_cut(
        self, machine: Machine, keep: str, kernel: str | Kernel | None, ready: Callable[[], None]
    ) -> Machine:
        """Cut the power of the machine handed out; ``kernel`` is a spec, a Kernel, or None for the same.

        ``ready`` is called when all is checked, right before the power goes.

        Raises: UsageError, KernelNotFound, InfrastructureError.
        """
        if isinstance(kernel, str):
            candidates = self.resolver.resolve([kernel])
            if len(candidates) != 1:
                raise UsageError(f"vm.power_cut: kernel={kernel!r} names {len(candidates)} kernels; name one")
            kernel = self.kernel(candidates[0])
        return self.pool.power_cut(machine, keep, kernel or machine.kernel, ready)

    @property
    def machine_spec(self) -> MachineSpec:
        from pytest_kernelfs.machines.machine import MachineSpec

        return MachineSpec(self.config.memory, self.config.cpus)

    def id_of(self, candidate: Candidate) -> str:
        """The parameter id of a candidate of this run."""
        return next(name for name, known in self.ids.items() if known == candidate)

    @cached_property
    def results(self) -> ResultTable:
        from pytest_kernelfs.report.results import ResultTable

        return ResultTable()

    def expect(self, upcoming: Sequence[Upcoming], saved: Saved | None) -> None:
        """Be told the next tests that want a machine of their own: spares can be made.

        ``saved`` is what this test's machine started from; those of its module start from there too.
        """
        wanted = [(next_.candidate, next_.spec) for next_ in upcoming if saved is None or next_.same_module]
        kernel = self._kernels.get(wanted[0][0].checksum) if wanted else None
        if kernel is not None:
            from pytest_kernelfs.machines.pool import Wish

            self.pool.expect(Wish(kernel, wanted[0][1], saved), wanted.count(wanted[0]))

    def close(self) -> None:
        """End every machine, and the provider."""
        try:
            if self._pool is not None:
                self._pool.close()
        finally:
            if "provider" in self.__dict__:
                self.provider.close()
