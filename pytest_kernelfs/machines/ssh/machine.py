"""A machine that our agent works on over ssh."""

from __future__ import annotations

from typing import Any, final

from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelfsError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.ssh.transport import SshTransport
from pytest_kernelfs.machines.tenant.access import Access, Tenancy, Unreachable
from pytest_kernelfs.machines.tenant.machine import TenantMachine

PROVIDER = "ssh"


@final
class SshMachine(TenantMachine):
    """See ``machines.machine.Machine``. It tells a machine that is gone from one that hangs."""

    def __init__(
        self, transport: SshTransport, kernel: Kernel, tenancy: Tenancy | None = None, *, timeout: float
    ) -> None:
        """Bring the agent there, over a transport that is opened if need be and stays open.

        Raises: ProviderUnavailable, Unreachable, InfrastructureError.
        """
        self._transport = transport
        try:
            super().__init__(access_over(transport), kernel, tenancy, timeout=timeout)
        except Unreachable as error:
            raise explained(transport, error) from None

    def _call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        try:
            return super()._call(kind, payload, args, kwargs, timeout)
        except GuestTimeout as late:
            # A kernel that hangs is what tests look for; a machine that is gone is none of its doing.
            if self._transport.answers():
                raise
            self._died = self.explain_end(str(late))
            raise self._died from None

    def explain_end(self, seen: str) -> KernelfsError:
        why = super().explain_end(seen)
        if not isinstance(why, InfrastructureError) or self._transport.answers():
            return why
        return InfrastructureError(
            f"{self.access.label} vanished during the test ({seen}). Whether its kernel panicked, its "
            "network failed or it was switched off cannot be seen over ssh: look at its console, and at what "
            "it kept (journalctl -k -b -1, /sys/fs/pstore) once it is up. If it runs on, our supervisor "
            f"there takes down what tests made. {self._transport.heard()}"
        )


def access_over(transport: SshTransport) -> Access:
    """How our agent gets there. Raises: as the transport's ``open``."""
    return Access(PROVIDER, transport.destination, transport.prefix(), shell=True)  # noqa: S604  (it quotes)


def explained(transport: SshTransport, error: Unreachable) -> KernelfsError:
    """The same in plain words, if it was ssh that failed."""
    if transport.answers():
        return error
    return InfrastructureError(transport.explain(error.said))
