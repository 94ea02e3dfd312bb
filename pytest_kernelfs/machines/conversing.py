"""A machine that a hypervisor runs for us: calls, and what is said of its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    KernelPanic,
)
from pytest_kernelfs.guest import fork
from pytest_kernelfs.guest.image_boot import FAILED
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.boot import identity
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel, GuestExchange, call_payload
from pytest_kernelfs.machines.disk_image import boot_trouble
from pytest_kernelfs.machines.machine import MOUNTS
from pytest_kernelfs.machines.serial_keys import SerialKeys, SerialLine
from pytest_kernelfs.machines.verdict import panic_text, tail

# A panicking kernel prints for a while before its machine ends.
LAST_WORDS_S = 5.0
# A clock is late by what passes before it is set; whoever took longer is told the time again, so often.
_ON_TIME_S = 0.3
_TIMES_TOLD = 5


class BootPanic(InfrastructureError):
    """The kernel panicked before it could be tested."""


class ConversingMachine:
    """A base for machines whose agent answers over a channel and whose console tells how they ended."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.log_start = 0
        self.mounts = MOUNTS
        self.spoiled = False
        self._channel: GuestChannel | None = None
        self._died: KernelfsError | None = None

    def has_ended(self, within: float = 0.0) -> bool:
        """Whether the machine has ended, waiting up to ``within`` seconds for it."""
        raise NotImplementedError

    def console(self) -> str:
        """All that the serial console has printed."""
        raise NotImplementedError

    def _complaint(self) -> str:
        """What whoever runs the machine says of its end; "" if it says nothing."""
        raise NotImplementedError

    def _why_it_ended(self) -> KernelfsError:
        """What is to be said of a machine that ended without a panic."""
        raise NotImplementedError

    def _open_channel(self, deadline: float) -> GuestChannel:
        """The channel to the agent. Raises: ChannelLost, GuestTimeout, OSError."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """False once the machine is known to be gone or beyond use."""
        return self._died is None and not self.has_ended()

    def wait_ready(self, timeout: float) -> None:
        """Wait until the guest answers, and is told who it is.

        Raises: InfrastructureError, with what the console printed, if it panics, ends or stays silent.
        """
        deadline = time.monotonic() + timeout
        try:
            self._channel = self._open_channel(deadline)
            self._introduce(self._channel, deadline)
        except GuestTimeout:
            raise InfrastructureError(self._boot_report(f"did not answer within {timeout:g} s")) from None
        except (ChannelLost, OSError) as error:
            self.has_ended(LAST_WORDS_S)
            if panic_text(self.console()):
                raise BootPanic(self._boot_report("panicked while it booted")) from None
            raise InfrastructureError(
                self._boot_report(f"ended while it booted ({self._complaint() or error})")
            ) from None

    def _introduce(self, channel: GuestChannel, deadline: float) -> None:
        """Tell the guest who it is, and the time until it has heard that without delay."""
        begun = time.monotonic()
        left = max(deadline - begun, 0.0)
        self.log_start = channel.call("name", call_payload(fork.adopt), identity(), {}, left)
        for _ in range(_TIMES_TOLD):
            took, begun = time.monotonic() - begun, time.monotonic()
            if took < _ON_TIME_S:
                return
            left = max(deadline - begun, 0.0)
            channel.call("name", call_payload(fork.set_clock), (time.time(),), {}, left)

    def _boot_report(self, what: str) -> str:
        trouble = boot_trouble(self.console())
        if trouble:
            what += f": {trouble}"
        panic = panic_text(self.console())
        report = (
            f"kernel {self.kernel.release} ({self.kernel.source}) {what}. The console's last lines:\n"
            f"{panic or tail(self.console())}"
        )
        if FAILED in trouble:  # neither time nor another accelerator would help
            return report
        return (
            f"{report}\n"
            "If the machine was only slow, give it more time with --kernelfs-boot-timeout SECONDS; "
            "if KVM is to blame, try --kernelfs-accel tcg."
        )

    def check_alive(self) -> None:
        """Raise what ended the machine, if it has ended and nobody was told yet."""
        if self._died is None and self.has_ended():
            self._died = self._explain("nobody had called it since")
            raise self._died

    def call(self, function: Callable[..., Any], *args: Any, timeout: float, **kwargs: Any) -> Any:
        """Run a function of ``pytest_kernelfs.guest`` inside, and give its value."""
        return self._call("name", call_payload(function), args, kwargs, timeout)

    def call_source(self, source: str, name: str, *args: Any, timeout: float) -> Any:
        """Run the function ``name`` of the module text ``source`` inside, and give its value."""
        return self._call("source", (source, name), args, {}, timeout)

    def exchange(self, function: Callable[..., Any], *args: Any) -> GuestExchange:
        """Begin a call of a function of ``pytest_kernelfs.guest`` in which items go both ways."""
        return self._talking().exchange(function, args, self._lost)

    def _call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        try:
            return self._talking().call(kind, payload, args, kwargs, timeout)
        except ChannelLost as lost:
            raise self._lost(str(lost)) from None
        except GuestTimeout as late:
            if panic_text(self.console()) is None and not self.has_ended():
                raise
            self._died = self._explain(str(late))
            raise self._died from None

    def _talking(self) -> GuestChannel:
        """The channel. Raises: what ended the machine, if it is known to have ended."""
        if self._died is not None:
            raise self._died
        if self._channel is None:
            raise InfrastructureError("the machine has not been waited for")
        return self._channel

    def _lost(self, seen: str) -> KernelfsError:
        """What ended the machine, now that its channel has closed."""
        if self._died is None:
            self._died = self._explain(seen)
        return self._died

    def _press_keys(self, line: SerialLine, keys: str, timeout: float) -> str:
        """See ``machines.machine.Machine.sysrq``."""
        before, self.spoiled = self.spoiled, True
        serial = SerialKeys(line)
        try:
            return serial.ask(keys, timeout)
        finally:
            self.spoiled = before or not serial.level_is_back

    def _cannot_press(self, error: Exception) -> KernelfsError:
        """What is to be said when pressing keys failed."""
        if not self.has_ended(LAST_WORDS_S) and panic_text(self.console()) is None:
            return InfrastructureError(f"cannot press sysrq keys: {error}")
        self._died = self._died or self._explain(str(error))
        return self._died

    def _explain(self, seen: str) -> KernelfsError:
        """What ended the machine: the kernel under test, or we."""
        ended = self.has_ended(LAST_WORDS_S)
        panic = panic_text(self.console())
        if panic is not None:
            return KernelPanic(f"kernel {self.kernel.release} panicked:\n{panic}")
        if ended:
            return self._why_it_ended()
        return KernelMisbehaved(
            f"kernel {self.kernel.release} closed its channel but runs on ({seen}): the agent "
            f"was killed, or memory ran out. The console's last lines:\n{tail(self.console())}"
        )

    def _shut_down(self) -> KernelMisbehaved:
        return KernelMisbehaved(
            f"the machine with kernel {self.kernel.release} was shut down or rebooted during the test. "
            f"The console's last lines:\n{tail(self.console())}"
        )
