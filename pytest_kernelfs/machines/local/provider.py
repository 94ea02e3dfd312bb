"""The provider whose machine is this host: opt-in, as root, each test in fresh namespaces."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.guest import tenant, tenant_facts
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.local.machine import LocalMachine
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Settings
from pytest_kernelfs.machines.tenant.access import Tenancy
from pytest_kernelfs.machines.tenant.facts import kernel_of
from pytest_kernelfs.machines.tenant.provider import CommandProvider, demand_no_parameters

_MODULES = Path("/lib/modules")


@final
class LocalProvider(CommandProvider):
    """Tests run on this host, as root, with mount, cgroup, network, PID, IPC and UTS namespaces apart."""

    # A fresh machine takes a quarter of a second.
    isolation = "test"

    def __init__(self, settings: Settings, *, allowed: bool) -> None:
        """``allowed`` is whether the user said that tests may run on this kernel."""
        tenancy = Tenancy(namespaces=True, wait=settings.boot_timeout)
        super().__init__(
            settings, name="local", prefix=(), label="this host", python=sys.executable, tenancy=tenancy
        )
        self._allowed = allowed

    def describe(self) -> str:
        self._demand_leave()
        return f"local: this host's own kernel {platform.release()}, in namespaces"

    def own_kernel(self) -> Kernel:
        self._demand_leave()
        return self.kernel

    @cached_property
    def kernel(self) -> Kernel:
        facts = tenant_facts.read()
        kernel = kernel_of(facts, self.access, Cache(self.settings.cache_root))
        modules = _MODULES / kernel.release
        return replace(kernel, modules=modules) if (modules / "modules.dep").is_file() else kernel

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        self._demand_leave()
        demand_no_parameters(self.name, self.access.label, spec)
        timeout = self.settings.boot_timeout
        return self._turn.enter(lambda tenancy: LocalMachine(self.access, kernel, tenancy, timeout=timeout))

    def collect(self) -> list[str]:
        return tenant.collect() if self._allowed else []

    def _demand_leave(self) -> None:
        """Raises: ProviderUnavailable without the explicit option, or without root."""
        if not self._allowed:
            raise ProviderUnavailable(
                "the provider local runs tests as root on this host's own kernel: one that crashes it, or "
                "fills its memory, takes the host along. If that is wanted, say --kernelfs-allow-local; "
                "without --kernelfs-provider local they run in machines of their own"
            )
        if os.geteuid():
            raise ProviderUnavailable(
                f"the provider local needs root, and this is user {os.geteuid()}: run pytest as root (as "
                "with sudo -E), or leave out --kernelfs-provider local, which needs no root"
            )
