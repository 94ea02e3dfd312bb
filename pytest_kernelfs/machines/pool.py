"""The machines of a run: which test gets which."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import final

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.machine import MachineSpec, Provider
from pytest_kernelfs.machines.spares import Spares
from pytest_kernelfs.machines.vm import VM

_MOST_SPARES = 2


@dataclass(frozen=True)
class _Key:
    kernel: str
    spec: MachineSpec
    scope: str


@final
class MachinePool:
    """Hands out machines of one provider.

    One machine is handed out at a time: it serves all tests that ask for the
    same kernel, size and scope, and is replaced when the next asks for
    another, or when it died or was left unusable. Beside it, spares wait.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._key: _Key | None = None
        self._vm: VM | None = None
        self._spares = Spares(provider.start_if_quick)
        self._swept = False

    def take(self, kernel: Kernel, spec: MachineSpec, scope: str) -> VM:
        """A usable machine; ``scope`` names those that may share it.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        key = _Key(kernel.checksum, spec, scope)
        if self._vm is not None and self._vm.usable and self._key == key:
            return self._vm
        self.release()
        if not self._swept:
            self._swept = True
            lease.collect()
        machine = self._spares.take(kernel, spec) or self.provider.start(kernel, spec)
        self._vm, self._key = VM(machine), key
        return self._vm

    def expect(self, kernel: Kernel, spec: MachineSpec, count: int) -> None:
        """Be told that so many more machines of this kind will be asked for next."""
        if self._swept and (os.cpu_count() or 1) > 1:
            self._spares.prepare(kernel, spec, min(count, _MOST_SPARES))

    def release(self) -> None:
        """End the machine that was handed out, if any."""
        if self._vm is not None:
            self._vm.machine.destroy()
        self._vm = self._key = None

    def close(self) -> None:
        """End every machine."""
        self.release()
        self._spares.close()
