"""A machine of Vagrant's that our agent works on, over ssh."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, final

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    KernelPanic,
)
from pytest_kernelfs.guest import files, fork
from pytest_kernelfs.machines.boot import identity
from pytest_kernelfs.machines.tenant.access import Access, Tenancy
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.vagrant.instance import BOOT_ID, Instance
from pytest_kernelfs.machines.verdict import panic_text, shut_down_text

PROVIDER = "vagrant"
# A system that goes down closes its connections first, and then has its services end: systemd gives 90 s.
_GOING_DOWN_S = 120.0
_STILL_THERE_S = 10.0
_TRY_S = 10.0
_CALL_S = 60.0
_POLL_S = 0.2
# What Vagrant calls machines that were started and have not ended; "inaccessible": without an address.
_RUNNING = ("running", "inaccessible")


@final
class VagrantMachine(TenantMachine):
    """See ``machines.machine.Machine``; ``give_back`` is called with its instance at its end."""

    def __init__(self, instance: Instance, give_back: Callable[[Instance], None], timeout: float) -> None:
        """Bring our agent there. Raises: InfrastructureError."""
        self._instance = instance
        self._give_back: Callable[[Instance], None] | None = give_back
        label = f"the machine {instance.place.name}"
        access = Access(PROVIDER, label, instance.connect().prefix(), shell=True)  # noqa: S604  (no process)
        super().__init__(access, instance.kernel, Tenancy(owned=True), timeout=timeout)
        self._came = len(self.console())
        self._boot = ""
        try:
            if instance.was_restored:
                self._catch_up(timeout)
            if not instance.keeps_console:
                self._boot = self.call(files.text, BOOT_ID, timeout=_CALL_S).strip()
        except BaseException:
            # Nobody else knows of them, and the machine goes.
            self._connection.close(0.0)
            self._channel.close()
            raise

    def _catch_up(self, timeout: float) -> None:
        """Give a machine that was put back the time of day, and random numbers that no other test had."""
        _, now, entropy = identity()
        self.log_start = self.call(fork.adopt, self._instance.host_name, now, entropy, timeout=timeout)

    def console(self) -> str:
        return self._instance.console()

    def _call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        try:
            return super()._call(kind, payload, args, kwargs, timeout)
        except GuestTimeout as late:
            # Over ssh a kernel that panicked, or was reset, only falls silent.
            if self._seen() is None and self._instance.transport.answers():
                raise
            self._died = self.explain_end(str(late))
            raise self._died from None

    def _seen(self) -> KernelfsError | None:
        """What the console tells of an end of the machine; None if it tells of none, or is not kept."""
        console = self.console()
        panic = panic_text(console)
        if panic is not None:
            return KernelPanic(f"kernel {self.kernel.release} panicked:\n{panic}")
        told = shut_down_text(console[self._came :])
        if told is not None:
            return KernelMisbehaved(
                f"the machine with kernel {self.kernel.release} was shut down or rebooted during the test. "
                f"The console's last lines:\n{told}"
            )
        return None

    def explain_end(self, seen: str) -> KernelfsError:
        told = self._seen()
        if told is not None:
            return told
        why = super().explain_end(seen)
        there = self._instance.transport.answers()
        if there and not isinstance(why, InfrastructureError):
            return why
        said = self._instance.transport.heard()
        if not there and not self._instance.keeps_console:
            told = self._booted_anew(seen)
        state = "running" if there else self._instance.state()
        patience = _STILL_THERE_S if there else _GOING_DOWN_S
        told = told or self._seen_within(patience if state in _RUNNING else 0.0)
        if told is not None or there or not isinstance(why, InfrastructureError):
            return told or why
        how = "its network failed" if state in _RUNNING else "a test or its kernel shut it down"
        return InfrastructureError(
            f"{self.access.label} vanished during the test ({seen}): it was ended from outside, or {how}. "
            f"Vagrant calls it {state!r}. {said}"
        )

    def _booted_anew(self, seen: str) -> KernelMisbehaved | None:
        """What is to be said of a machine that comes up again; None if it does not, or never went down."""
        deadline = time.monotonic() + _GOING_DOWN_S
        while time.monotonic() < deadline and self._instance.state() in _RUNNING:
            boot = self._instance.boot_id(_TRY_S)
            if boot not in ("", self._boot):
                return KernelMisbehaved(
                    f"the machine with kernel {self.kernel.release} was rebooted during the test ({seen}): "
                    "it came up again, with another boot ID. Whether a test asked for that, or its kernel "
                    "panicked and is set to reboot then, only a serial console would tell: have the "
                    "Vagrantfile write it to the file that KERNELFS_VM_CONSOLE names"
                )
            if boot:  # of a system that goes down, the last to go may still let us in
                deadline = min(deadline, time.monotonic() + _STILL_THERE_S)
            time.sleep(_POLL_S)
        return None

    def _seen_within(self, seconds: float) -> KernelfsError | None:
        """The same, once the console tells; at once where it is not kept."""
        deadline = time.monotonic() + (seconds if self._instance.keeps_console else 0.0)
        while (told := self._seen()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return told

    def destroy(self) -> None:
        """Have our agent go; whether the machine goes too is for the provider to say."""
        super().destroy()
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back(self._instance)
