"""A base for providers whose machine runs already and is reached by a command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar, final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import Unsupported
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.machines.tenant.access import Access, Busy, Tenancy
from pytest_kernelfs.machines.tenant.facts import running_kernel
from pytest_kernelfs.machines.tenant.machine import TenantMachine

_M = TypeVar("_M", bound=TenantMachine)


@final
class Turn:
    """A machine's only place for tests: another run is waited for once, not by every test of this one."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self._refused: Busy | None = None

    def enter(self, make: Callable[[Tenancy], _M]) -> _M:
        """What ``make`` gives. Raises: Busy if tests of another run stay there; as ``make``."""
        try:
            return make(self._tenancy)
        except Busy as busy:
            # The next test only looks: the other run may be done by then.
            self._tenancy = replace(self._tenancy, wait=0.0)
            self._refused = self._refused or busy
            raise self._refused from None


class CommandProvider(PlainProvider):
    """Tests run on a machine that runs already, as root, with the kernel it has.

    All that it takes there is Python 3.8 or newer. What tests made there is taken down after each of them,
    and by a supervisor of ours when the agent has gone, for whatever reason.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str,
        prefix: Sequence[str],
        label: str = "",
        shell: bool = False,
        python: str = "python3",
        tenancy: Tenancy | None = None,
    ) -> None:
        """``prefix`` goes before a command to have it run there as root, with its standard streams.

        For instance ``["incus", "exec", "lab", "--"]``. ``label`` names the machine in messages, by default
        the prefix does. ``shell`` says that the prefix leads to a shell there, as ssh does, so that words
        have to be quoted. ``name`` is the provider's.
        """
        self.name = name
        self.settings = settings
        self.access = Access(name, label or " ".join(prefix), tuple(prefix), shell, python)
        self.tenancy = replace(tenancy or Tenancy(), run=settings.run)
        self._turn = Turn(self.tenancy)

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel that runs there. Raises: Unreachable, InfrastructureError."""
        return running_kernel(self.access, Cache(self.settings.cache_root), self.settings.boot_timeout)

    def describe(self) -> str:
        return f"{self.name}: {self.access.label}, kernel {self.kernel.release}"

    def own_kernel(self) -> Kernel:
        return self.kernel

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        demand_no_parameters(self.name, self.access.label, spec)
        timeout = self.settings.boot_timeout
        return self._turn.enter(lambda tenancy: TenantMachine(self.access, kernel, tenancy, timeout=timeout))


def demand_no_parameters(provider: str, label: str, spec: MachineSpec) -> None:
    """Raises: Unsupported for parameters that a kernel is given when it boots: it runs already."""
    if spec.boot_parameters:
        raise Unsupported(
            f"the kernel of {label} runs already: the provider {provider} cannot boot it with the parameters "
            f"{spec.boot_parameters!r}; the provider qemu can (--kernelfs-provider qemu)"
        )
