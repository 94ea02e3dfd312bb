"""Gives every machine of a provider a copy of folders of the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from pytest_kernelfs.errors import GuestCommandError, InfrastructureError, Unsupported, UsageError
from pytest_kernelfs.guest import sharing
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider, Saved
from pytest_kernelfs.machines.packing import batches, scan
from pytest_kernelfs.machines.shares import Share
from pytest_kernelfs.news import tell
from pytest_kernelfs.shortage import Shortage

# A megabyte takes 30 ms under TCG; on a host under heavy load it may take many times as long.
_CALL_TIMEOUT_S = 60.0
# What is saved takes about 250 MB of the cache's disk each.
_MOST_SAVED = 4
# The first may have been a host that was too busy.
_MOST_FAILURES = 2


def bring(machine: Machine, share: Share) -> None:
    """Copy a folder into a machine, as it is now.

    Raises: UsageError if it cannot be read; GuestCommandError if it does not fit, or its path is taken;
    as calls do.
    """
    found = scan(share.host)
    try:
        machine.call(
            sharing.make_room, sharing.PLACE, sum(one.size for one in found), timeout=_CALL_TIMEOUT_S
        )
        for batch in batches(found):
            machine.call(sharing.unpack, share.content, batch, timeout=_CALL_TIMEOUT_S)
        machine.call(sharing.appear, str(share.host), share.content, share.guest, timeout=_CALL_TIMEOUT_S)
    except GuestCommandError as error:
        raise GuestCommandError(f"the folder {share.host} cannot be shared: {error}") from None


@final
class SharingProvider:
    """A provider whose machines all have the shares; see ``machines.machine.Provider``.

    Where machines can be saved, the shares are copied once for each kernel and size of machine, and the
    machines that tests get are forks of one that has them. Elsewhere every machine gets its own copy.
    """

    def __init__(self, provider: Provider, shares: Sequence[Share]) -> None:
        self._provider = provider
        self._shares = tuple(shares)
        self._saved: dict[tuple[Kernel, MachineSpec], Saved] = {}
        self._cannot_save = False
        self._failures = 0
        self.name = provider.name
        self.isolation = provider.isolation

    def describe(self) -> str:
        return f"{self._provider.describe()}, sharing {', '.join(map(str, self._shares))}"

    def userland(self) -> str | None:
        return self._provider.userland()

    def own_kernel(self) -> Kernel | None:
        return self._provider.own_kernel()

    def prove(self, kernel: Kernel) -> None:
        self._provider.prove(kernel)

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        """A fork of a machine with the shares. Raises besides: as ``bring``."""
        key, trouble = (kernel, spec), None
        if not self._cannot_save:
            try:
                if key in self._saved or self._save(kernel, spec):
                    return self._provider.fork(self._saved[key])
            except Shortage:
                pass  # which says nothing of what is saved: this one machine gets a copy for itself
            except InfrastructureError as error:
                trouble = error
                if key in self._saved:
                    self._saved.pop(key).discard()  # it is of no use; the next start makes it anew
        machine = self._with_shares(self._provider.start(kernel, spec))
        if trouble is not None:  # else that has told it
            self._note(trouble)
        return machine

    def _save(self, kernel: Kernel, spec: MachineSpec) -> bool:
        """Make what machines of this kind are forked from; False if this provider's cannot be saved."""
        try:
            machine = self._provider.start_writable(kernel, spec)
        except (Unsupported, UsageError):
            self._cannot_save = True
            return False
        self._with_shares(machine)
        try:
            while len(self._saved) >= _MOST_SAVED:
                self._saved.pop(next(iter(self._saved))).discard()
            self._saved[kernel, spec] = machine.save()
        except Unsupported:
            self._cannot_save = True
            return False
        finally:
            machine.destroy()
        return True

    def _note(self, trouble: InfrastructureError) -> None:
        """Say once that machines cannot be forked though they should; after some such failures, stop it."""
        if not self._failures:
            tell(
                "a machine with the shared folders could not be saved and forked, so the next gets a copy of "
                f"them for itself, which takes longer: {trouble}"
            )
        self._failures += 1
        self._cannot_save = self._failures >= _MOST_FAILURES

    def _with_shares(self, machine: Machine) -> Machine:
        try:
            for share in self._shares:
                bring(machine, share)
        except BaseException:
            machine.destroy()
            raise
        return machine

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> Machine | None:
        if not self._cannot_save:
            saved = self._saved.get((kernel, spec))
            return None if saved is None else self._provider.fork_if_room(saved)
        machine = self._provider.start_if_quick(kernel, spec)
        return None if machine is None else self._with_shares(machine)

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        return self._with_shares(self._provider.start_writable(kernel, spec))

    def fork(self, saved: Saved) -> Machine:
        return self._provider.fork(saved)

    def fork_if_room(self, saved: Saved) -> Machine | None:
        return self._provider.fork_if_room(saved)

    def power_cut(self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]) -> Machine:
        return self._with_shares(self._provider.power_cut(machine, keep, kernel, ready))

    def collect(self) -> list[str]:
        return self._provider.collect()

    def close(self) -> None:
        while self._saved:
            self._saved.popitem()[1].discard()
        self._provider.close()
