"""A machine of Vagrant's that our agent works on, over ssh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelfsError, KernelPanic
from pytest_kernelfs.guest import fork
from pytest_kernelfs.machines.boot import identity
from pytest_kernelfs.machines.tenant.access import Access, Tenancy
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.vagrant.instance import Instance
from pytest_kernelfs.machines.verdict import panic_text

PROVIDER = "vagrant"


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
        if instance.was_restored:
            self._catch_up(timeout)

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
            # Over ssh a kernel that panicked only falls silent.
            if panic_text(self.console()) is None and self._instance.transport.answers():
                raise
            self._died = self.explain_end(str(late))
            raise self._died from None

    def explain_end(self, seen: str) -> KernelfsError:
        panic = panic_text(self.console())
        if panic is not None:
            return KernelPanic(f"kernel {self.kernel.release} panicked:\n{panic}")
        why = super().explain_end(seen)
        if not isinstance(why, InfrastructureError) or self._instance.transport.answers():
            return why
        return InfrastructureError(
            f"{self.access.label} vanished during the test ({seen}): it was shut down or rebooted, or its "
            f"network failed. Vagrant calls it {self._instance.state()!r}. {self._instance.transport.heard()}"
        )

    def destroy(self) -> None:
        """Have our agent go; whether the machine goes too is for the provider to say."""
        super().destroy()
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back(self._instance)
