"""The machines of a run: which test gets which."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.admission import somebody_waits
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider, Saved
from pytest_kernelfs.machines.spares import Spares
from pytest_kernelfs.machines.vm import VM

_MOST_SPARES = 2


@dataclass(frozen=True)
class Wish:
    """What a test wants: a kernel, a size, and what was saved to start from (None: as just booted)."""

    kernel: Kernel
    spec: MachineSpec
    saved: Saved | None = None


@final
class MachinePool:
    """Hands out machines of one provider.

    One machine is handed out at a time: it serves all tests with the same
    wish and scope, and is replaced when the next asks for another, or when
    it died or was left unusable. Beside it, spares wait, unless somebody waits
    for their room.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._key: tuple[Wish, str] | None = None
        self._vm: VM | None = None
        self._spares = Spares(somebody_waits)
        self._swept = False
        self._in_hand = False

    def take(self, wish: Wish, scope: str) -> VM:
        """A usable machine; ``scope`` names those that may share it.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        key = (wish, scope)
        self._in_hand = True
        if self._vm is not None and self._vm.usable and self._key == key and not self._vm.machine.spoiled:
            return self._vm
        self.release()
        self.sweep()
        self._vm, self._key = VM(self._spares.take(wish) or self._make(wish)), key
        return self._vm

    def _make(self, wish: Wish) -> Machine:
        if wish.saved is not None:
            return self.provider.fork(wish.saved)
        return self.provider.start(wish.kernel, wish.spec)

    def power_cut(self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]) -> Machine:
        """Cut the power of the machine handed out; gives what serves its test, and no other, from now on.

        Raises: as the provider's.
        """
        self._key = None
        return self.provider.power_cut(machine, keep, kernel, ready)

    def sweep(self) -> None:
        """Once a run, remove what runs that were killed left behind."""
        if not self._swept:
            self._swept = True
            self.provider.collect()

    def expect(self, wish: Wish, count: int) -> None:
        """Be told that so many more machines will be wished for next."""
        if self._vm is not None and (os.cpu_count() or 1) > 1:
            self._spares.prepare(wish, partial(self._make_if_quick, wish), min(count, _MOST_SPARES))

    def wait_for_spares(self) -> None:
        """Wait until the spares that are on their way are there."""
        self._spares.wait()

    def _make_if_quick(self, wish: Wish) -> Machine | None:
        if wish.saved is not None:
            return self.provider.fork_if_room(wish.saved)
        return self.provider.start_if_quick(wish.kernel, wish.spec)

    def give_back(self) -> None:
        """Be told that the test which took the machine is over; others may share it."""
        self._in_hand = False

    def make_room(self) -> None:
        """End what nobody is using: somebody is about to need room for a machine beside the pool's."""
        self._spares.clear()
        if not self._in_hand:
            self.release()

    def release(self) -> None:
        """End the machine that was handed out, if any."""
        vm, self._vm, self._key = self._vm, None, None
        if vm is not None:
            vm.machine.destroy()

    def close(self) -> None:
        """End every machine."""
        try:
            self.release()
        finally:
            self._spares.close()
