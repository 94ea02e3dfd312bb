"""The machines of a run: which test gets which."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.machine import MachineSpec, Provider
from pytest_kernelfs.machines.vm import VM


@dataclass(frozen=True)
class _Key:
    kernel: str
    spec: MachineSpec
    scope: str


class MachinePool:
    """Hands out machines of one provider.

    One machine lives at a time: it serves all tests that ask for the same
    kernel, size and scope, and is replaced when the next asks for another,
    or when it died or was left unusable.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._key: _Key | None = None
        self._vm: VM | None = None
        self._swept = False

    def take(self, kernel: Kernel, spec: MachineSpec, scope: str) -> VM:
        """A usable machine; ``scope`` names those that may share it.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        key = _Key(kernel.checksum, spec, scope)
        if self._vm is not None and self._vm.usable and self._key == key:
            return self._vm
        self.close()
        if not self._swept:
            self._swept = True
            lease.collect()
        self._vm, self._key = VM(self.provider.start(kernel, spec)), key
        return self._vm

    def close(self) -> None:
        """End the machine that lives, if any."""
        if self._vm is not None:
            self._vm.machine.destroy()
        self._vm = self._key = None
