"""A machine that runs already: our agent comes for the tests, and goes without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    Unsupported,
)
from pytest_kernelfs.guest import tenant_disks, tenant_keys
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel, GuestExchange, call_payload
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.plain import PlainMachine
from pytest_kernelfs.machines.tenant.access import Access, Tenancy
from pytest_kernelfs.machines.tenant.connection import Connection
from pytest_kernelfs.news import tell

_CALL_S = 30.0
# What is stuck is waited for: processes, then devices, then cgroups, 10 s each; then it is told.
_TIDY_S = 60.0
_LAST_WORDS_S = 10.0
# As /proc/sysrq-trigger has them: reboot, crash, end, kill or slow down processes whosever they are, stop in
# a debugger, thaw file systems, power off, and mount all of them read-only.
_HARMFUL_KEYS = "bcefgijknou"


class TenantMachine(PlainMachine):
    """Our agent on a machine that runs already; see ``machines.machine.Machine``.

    It works over the standard streams of a command that leads to a root Python there. Over there, a
    supervisor stays behind the agent. When the agent ends, or the connection is lost, it ends what the
    agent left running, takes down what tests made through us, and sets back what they set. One such agent
    at a time works on a machine.
    """

    def __init__(
        self, access: Access, kernel: Kernel, tenancy: Tenancy | None = None, *, timeout: float = 60.0
    ) -> None:
        """Bring the agent there, within ``timeout`` seconds; ``kernel`` is what runs there.

        Another run that works there is waited for as long as ``tenancy`` says, the other workers of this run
        as long as they live.

        Raises: Unreachable, Busy, InfrastructureError.
        """
        self.access = access
        self.kernel = kernel
        self.tenancy = tenancy or Tenancy()
        self.provider_name = access.provider
        self.spoiled = False
        self.leftovers: list[str] = []
        """What the supervisor took down when the agent had gone; complete after ``destroy``."""
        self._died: KernelfsError | None = None
        settings = {
            "namespaces": self.tenancy.namespaces,
            "wait": self.tenancy.wait,
            "run": self.tenancy.run,
        }
        self._connection = Connection(access, settings, timeout + self.tenancy.wait)
        self.log_start: int = self._connection.facts["log_start"]
        self.mounts: str = self._connection.facts["mounts"]
        try:
            self._channel = GuestChannel(self._connection.socket)
        except BaseException:
            self._connection.close(0.0)
            raise

    def __repr__(self) -> str:
        state = "running" if self.alive else "gone"
        return f"<TenantMachine {self.access.label} {self.kernel.release} {state}>"

    @property
    def pid(self) -> int:
        """The process, on this host, of the command that leads there."""
        return self._connection.pid

    @property
    def alive(self) -> bool:
        return self._died is None and not self._connection.ended

    def check_alive(self) -> None:
        if self._died is None and self._connection.ended:
            raise self._lost("nobody had called it since")

    def call(self, function: Callable[..., Any], *args: Any, timeout: float, **kwargs: Any) -> Any:
        return self._call("name", call_payload(function), args, kwargs, timeout)

    def call_source(self, source: str, name: str, *args: Any, timeout: float) -> Any:
        return self._call("source", (source, name), args, {}, timeout)

    def exchange(self, function: Callable[..., Any], *args: Any) -> GuestExchange:
        if self._died is not None:
            raise self._died
        return self._channel.exchange(function, args, self._lost)

    def _lost(self, seen: str) -> KernelfsError:
        """What ended the conversation, now that its channel has closed."""
        if self._died is None:
            self._died = self.explain_end(seen)
        return self._died

    def _call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        if self._died is not None:
            raise self._died
        try:
            return self._channel.call(kind, payload, args, kwargs, timeout)
        except ChannelLost as lost:
            raise self._lost(str(lost)) from None
        except GuestTimeout as late:
            if not self._connection.ended:
                raise
            self._died = self.explain_end(str(late))
            raise self._died from None

    def explain_end(self, seen: str) -> KernelfsError:
        """What ended the conversation: a test or the kernel, which ended the agent, or the way there."""
        code = self._connection.wait(_LAST_WORDS_S)
        report = self._connection.report
        if report is not None and report["ended"]:
            return KernelMisbehaved(
                f"the agent on {self.access.label} {report['ended']} ({seen}): a test ended it, or the "
                "kernel did because memory ran out"
            )
        how = "the connection broke" if code is None else f"the connection ended with exit code {code}"
        said = self._connection.said().strip()
        return InfrastructureError(
            f"{self.access.label} was lost during the test: {how} ({seen})"
            + (f"; it printed:\n{said}" if said else "")
        )

    def attach_disk(self, spec: DiskSpec) -> str:
        """A loop device on a sparse file, throttled by the kernel's block controller."""
        if spec.power_cut:
            raise Unsupported(
                f"the provider {self.provider_name} cannot cut the power of its machines, so it has no disks "
                "with power_cut=True; the provider qemu has (--kernelfs-provider qemu)"
            )
        made = self.call(
            tenant_disks.attach,
            spec.size,
            spec.sector_size,
            spec.cache,
            _limits(spec),
            timeout=_CALL_S,
        )
        return str(self._unless_refused(made))

    def detach_disk(self, serial: str) -> None:
        self.call(tenant_disks.detach, serial, timeout=_CALL_S)

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:
        self._unless_refused(self.call(tenant_disks.throttle, serial, _limits(spec), timeout=_CALL_S))

    def sysrq(self, keys: str, timeout: float) -> str:
        """Press keys through /proc/sysrq-trigger: that works only while the agent answers."""
        harmful = sorted(set(keys) & set(_HARMFUL_KEYS))
        if harmful and not self.tenancy.owned:
            raise Unsupported(
                f"the provider {self.provider_name} does not press the sysrq keys {', '.join(harmful)}: they "
                f"would harm what else runs on {self.access.label}"
            )
        return str(self._unless_refused(self.call(tenant_keys.press, keys, timeout=timeout)))

    def _unless_refused(self, answer: Any) -> Any:
        """The value of (value, ""). Raises: Unsupported for (None, what that machine cannot do)."""
        value, refusal = answer
        if refusal:
            raise Unsupported(f"the provider {self.provider_name}: {self.access.label} {refusal}")
        return value

    def destroy(self) -> None:
        """Have the agent go and the machine left as it was; what could not be put right is news."""
        in_time = self._connection.close(_TIDY_S)
        self._channel.close()
        was_well = self._died is None
        if was_well:
            self._died = InfrastructureError("the machine was left and is used no more")
        report = self._connection.report or self.tidy_instead()
        if report is not None:
            self.leftovers = list(report["removed"])
        if was_well:
            self._tell_of(report, in_time)

    def tidy_instead(self) -> dict[str, Any] | None:
        """For machines that can: what the supervisor says, done and said for one that was killed."""
        return None

    def _tell_of(self, report: dict[str, Any] | None, in_time: bool) -> None:
        if not in_time:
            what = f"did not say within {_TIDY_S:g} s that it is tidy; the next run tidies it"
        elif report is None:
            what = "was left before our supervisor there could say that it is tidy; the next run tidies it"
        elif report["left"]:
            what = "still has, of what tests made there: " + "; ".join(report["left"])
        else:
            return
        tell(f"{self.access.label} {what}")


def _limits(spec: DiskSpec) -> dict[str, int]:
    return {"write_bps": spec.write_bps, "read_bps": spec.read_bps, "iops": spec.iops}
