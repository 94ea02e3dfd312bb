"""Tests on a machine that is reached over ssh, with the kernel it runs."""

from __future__ import annotations

import platform
import time
from functools import cached_property
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, KernelfsError, ProviderUnavailable, UsageError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.machines.ssh.machine import PROVIDER, SshMachine, access_over, explained
from pytest_kernelfs.machines.ssh.transport import SshTransport
from pytest_kernelfs.machines.tenant.access import Tenancy, Unreachable
from pytest_kernelfs.machines.tenant.facts import running_kernel
from pytest_kernelfs.machines.tenant.provider import Turn, demand_no_parameters

_CALL_S = 60.0
_RETRY_S = 2.0


@final
class SshProvider(PlainProvider):
    """One machine, which is never rebooted, reinstalled or ended: it is left as it was found."""

    name = PROVIDER

    def __init__(self, settings: Settings, destination: str, config_file: Path | None = None) -> None:
        """``destination`` is as for ssh; ``config_file`` stands in for the user's and the system's.

        Raises: UsageError.
        """
        if not destination:
            raise UsageError(
                "--kernelfs-provider ssh: name the machine with --kernelfs-ssh: user@host, a name from "
                "~/.ssh/config, or ssh://user@host:port"
            )
        if config_file is not None and not config_file.is_file():
            raise UsageError(f"--kernelfs-ssh-config: there is no file {config_file}")
        self.settings = settings
        self.transport = SshTransport(destination, config_file=config_file)
        self._turn = Turn(Tenancy(run=settings.run))
        self._refused: KernelfsError | None = None
        self._was_there = False

    @cached_property
    def kernel(self) -> Kernel:
        """The kernel that runs there. Raises: ProviderUnavailable, InfrastructureError."""
        self._open()
        cache = Cache(self.settings.cache_root)
        try:
            return running_kernel(access_over(self.transport), cache, self.settings.boot_timeout)
        except Unreachable as error:
            raise explained(self.transport, error) from None

    def describe(self) -> str:
        return f"ssh: {self.transport.destination}, kernel {self.kernel.release}"

    def own_kernel(self) -> Kernel:
        return self.kernel

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        demand_no_parameters(self.name, self.transport.destination, spec)
        self._open()
        timeout = self.settings.boot_timeout
        machine = self._turn.enter(
            lambda tenancy: SshMachine(self.transport, kernel, tenancy, timeout=timeout)
        )
        try:
            self._check(machine, kernel)
        except BaseException:
            machine.destroy()
            raise
        return machine

    def _open(self) -> None:
        """Connect; a machine that cannot be reached is not tried again for every test of the run.

        One that was there, and vanished, may be on its way up: it is waited for as long as a boot may take.
        """
        if self._refused is not None:
            raise self._refused
        patience = self.settings.boot_timeout if self._was_there else 0.0
        deadline = time.monotonic() + patience
        while True:
            try:
                self.transport.open()
            except ProviderUnavailable as error:
                if time.monotonic() < deadline:
                    time.sleep(_RETRY_S)
                    continue
                self._refused = self._gone(error, patience) if patience else error
                raise self._refused from None
            self._was_there = True
            return

    def _gone(self, error: ProviderUnavailable, patience: float) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self.transport.destination} vanished in the middle of the tests, and did not come back within "
            f"{patience:g} s (--kernelfs-boot-timeout): {error}"
        )

    def _check(self, machine: SshMachine, kernel: Kernel) -> None:
        """Raises: InfrastructureError if it was started anew meanwhile, with another kernel."""
        release = machine.call(platform.release, timeout=_CALL_S)
        if release != kernel.release:
            raise InfrastructureError(
                f"{self.transport.destination} runs kernel {release} now, and ran {kernel.release} when the "
                "tests began: it was started anew; run the tests again"
            )

    def close(self) -> None:
        self.transport.close()
