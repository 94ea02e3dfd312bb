"""A machine that QEMU runs."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    KernelPanic,
    UsageError,
)
from pytest_kernelfs.guest import fork
from pytest_kernelfs.guest.init import WAITING
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.admission import NO_SLOT, Slot
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel, call_payload
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu.command import (
    AGENT_SOCKET,
    CONSOLE,
    QMP_SOCKET,
    Launch,
    qemu_command,
)
from pytest_kernelfs.machines.qemu.disks import DiskBay, Plug
from pytest_kernelfs.machines.qemu.process import QemuProcess
from pytest_kernelfs.machines.qemu.qmp import DEFAULT_TIMEOUT_S, Monitor
from pytest_kernelfs.machines.qemu.saved import QemuSaved
from pytest_kernelfs.machines.qemu.sysrq import SerialKeys, make_console
from pytest_kernelfs.machines.qemu.template import STATE, load_from, save_to
from pytest_kernelfs.machines.verdict import panic_text, tail

# A panicking kernel prints for a while before QEMU ends.
_ENTROPY_BYTES = 64
_numbers = itertools.count(1)
_LAST_WORDS_S = 5.0
_POLL_S = 0.002
_SAVE_TIMEOUT_S = 30.0
# Leaves the memory out of a saved state: it is in its file already.
_KEEP_MEMORY = [{"capability": "x-ignore-shared", "state": True}]


class BootPanic(InfrastructureError):
    """The kernel panicked before it could be tested."""


@final
class QemuMachine:
    """A machine from its QEMU process on; see ``machines.machine.Machine``."""

    def __init__(self, launch: Launch, slot: Slot, plugs: Sequence[Plug] = ()) -> None:
        """Start QEMU in a fresh folder; ``slot`` is given back with the machine's end.

        ``plugs`` are disks that a saved state knows.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        self.kernel = launch.kernel
        self.launch = launch
        self.slot = slot
        self._plugs = tuple(plugs)
        self._folder = lease.make_folder()
        self._data: Path | None = None
        try:
            make_console(self._folder)
            disks = [option for plug in plugs for option in self._bring(plug)]
            self._process = QemuProcess(qemu_command(launch, self._folder, disks), self._folder)
        except BaseException:
            self._remove_folders()
            raise
        self._channel: GuestChannel | None = None
        self._monitor: Monitor | None = None
        self._disks: DiskBay | None = None
        self.log_start = 0
        self.spoiled = False
        self._last_console = ""
        self._died: KernelfsError | None = None

    def __repr__(self) -> str:
        state = "running" if self.alive else "gone"
        return f"<QemuMachine {self.kernel.release} pid={self._process.pid} {state}>"

    @property
    def pid(self) -> int:
        """QEMU's process number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._died is None and not self._process.ended()

    def wait_ready(self, timeout: float) -> None:
        """Wait until the guest answers, and is told who it is.

        Raises: InfrastructureError, with what the console printed, if it panics, ends or stays silent.
        """
        deadline = time.monotonic() + timeout
        try:
            self._channel = GuestChannel(self._connect(AGENT_SOCKET, deadline))
            left = max(deadline - time.monotonic(), 0.0)
            self.log_start = self._channel.call("name", call_payload(fork.adopt), _identity(), {}, left)
        except GuestTimeout:
            raise InfrastructureError(self._boot_report(f"did not answer within {timeout:g} s")) from None
        except (ChannelLost, OSError) as error:
            self._process.ended(_LAST_WORDS_S)
            if panic_text(self.console()):
                raise BootPanic(self._boot_report("panicked while it booted")) from None
            raise InfrastructureError(
                self._boot_report(f"ended while it booted ({self._process.complaint() or error})")
            ) from None

    def _connect(self, name: str, deadline: float) -> socket.socket:
        """Connect to one of QEMU's sockets: it is there a moment before anybody listens."""
        path = str(self._folder / name)
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(path)
            except OSError as error:
                connection.close()
                if self._process.ended():
                    raise ChannelLost("QEMU ended") from error
                if time.monotonic() > deadline:
                    raise GuestTimeout("QEMU made no socket") from error
                time.sleep(_POLL_S)
            else:
                return connection

    def _boot_report(self, what: str) -> str:
        return (
            f"kernel {self.kernel.release} ({self.kernel.source}) {what}. The console's last lines:\n"
            f"{tail(self.console())}\n"
            "If the machine was only slow, give it more time with --kernelfs-boot-timeout SECONDS; "
            "if KVM is to blame, try --kernelfs-accel tcg."
        )

    def check_alive(self) -> None:
        if self._died is None and self._process.ended():
            self._died = self._explain("nobody had called it since")
            raise self._died

    def call(self, function: Callable[..., Any], *args: Any, timeout: float, **kwargs: Any) -> Any:
        return self._call("name", call_payload(function), args, kwargs, timeout)

    def call_source(self, source: str, name: str, *args: Any, timeout: float) -> Any:
        return self._call("source", (source, name), args, {}, timeout)

    def _call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        if self._died is not None:
            raise self._died
        if self._channel is None:
            raise InfrastructureError("the machine has not been waited for")
        try:
            return self._channel.call(kind, payload, args, kwargs, timeout)
        except ChannelLost as lost:
            self._died = self._explain(str(lost))
            raise self._died from None
        except GuestTimeout as late:
            if panic_text(self.console()) is None and not self._process.ended():
                raise
            self._died = self._explain(str(late))
            raise self._died from None

    def sysrq(self, keys: str, timeout: float) -> str:
        if self._process.ended():
            raise self._died or self._explain("before a sysrq key was pressed")
        try:
            with closing(SerialKeys(self.monitor, self._folder, self._process.ended)) as serial:
                before, self.spoiled = self.spoiled, True
                text = serial.ask(keys, timeout)
                self.spoiled = before or not serial.level_is_back
                return text
        except (ChannelLost, InfrastructureError, OSError) as error:
            if not self._process.ended(_LAST_WORDS_S) and panic_text(self.console()) is None:
                raise InfrastructureError(f"cannot press sysrq keys: {error}") from None
            self._died = self._died or self._explain(str(error))
            raise self._died from None

    def _explain(self, seen: str) -> KernelfsError:
        """What ended the machine: the kernel under test, or we."""
        ended = self._process.ended(_LAST_WORDS_S)
        panic = panic_text(self.console())
        if panic is not None:
            return self._panicked(panic)
        if not ended:
            return KernelMisbehaved(
                f"kernel {self.kernel.release} closed its channel but runs on ({seen}): the agent "
                f"was killed, or memory ran out. The console's last lines:\n{tail(self.console())}"
            )
        complaint = self._process.complaint()
        if complaint == "exit code 0":
            return KernelMisbehaved(
                f"the machine with kernel {self.kernel.release} was shut down or rebooted during the test. "
                f"The console's last lines:\n{tail(self.console())}"
            )
        return InfrastructureError(f"QEMU ended during the test ({complaint}); run the test again")

    def _panicked(self, panic: str) -> KernelPanic:
        return KernelPanic(f"kernel {self.kernel.release} panicked:\n{panic}")

    def resume(self, state: Path, timeout: float) -> None:
        """Load a saved state and run on from there. Raises: InfrastructureError."""
        deadline = time.monotonic() + timeout
        self.monitor.execute("migrate-set-capabilities", capabilities=_KEEP_MEMORY)
        self.monitor.execute("migrate-incoming", uri=load_from(state))
        self._wait_for(self._loaded, deadline, "does not load its state")
        self.monitor.execute("cont")

    def suspend(self, state: Path, timeout: float) -> None:
        """End the conversation, stop the machine once it waits for the next, and save its devices' state.

        Its memory stays in the file it was launched with. Raises: InfrastructureError.
        """
        deadline = time.monotonic() + timeout
        waited = self.console().count(WAITING)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._wait_for(lambda: self.console().count(WAITING) > waited, deadline, "does not wait for the host")
        self.monitor.execute("stop")
        self.monitor.execute("migrate-set-capabilities", capabilities=_KEEP_MEMORY)
        self.monitor.execute("migrate", uri=save_to(state))
        self._wait_for(self._saved, deadline, "does not save its state")

    def _loaded(self) -> bool:
        return bool(self.monitor.execute("query-status")["status"] != "inmigrate")

    def _saved(self) -> bool:
        status = self.monitor.execute("query-migrate").get("status")
        if status in ("failed", "cancelled"):
            raise InfrastructureError(f"QEMU could not save the machine's state ({status})")
        return bool(status == "completed")

    def _wait_for(self, happened: Callable[[], bool], deadline: float, otherwise: str) -> None:
        while not happened():
            if self._process.ended():
                raise InfrastructureError(f"QEMU ended ({self._process.complaint()})")
            if time.monotonic() > deadline:
                raise InfrastructureError(f"the machine with kernel {self.kernel.release} {otherwise}")
            time.sleep(_POLL_S)

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor, connected on first use. Raises: InfrastructureError."""
        if self._monitor is None:
            try:
                connection = self._connect(QMP_SOCKET, time.monotonic() + DEFAULT_TIMEOUT_S)
            except (ChannelLost, GuestTimeout) as error:
                raise InfrastructureError(f"{error} ({self._process.complaint()})") from None
            self._monitor = Monitor(connection)
        return self._monitor

    def save(self) -> QemuSaved:
        memory = self.launch.memory
        if memory is None or not memory.shared:
            raise UsageError(
                "only a machine that the fixture 'prepare' made can be saved: the others share their memory "
                "with the template they were forked from"
            )
        folder = memory.path.parent
        try:
            self.suspend(folder / STATE, _SAVE_TIMEOUT_S)
            plugs = self._bay().make_bases(folder)
            self._process.kill()
            with explain_os_errors("save the disks of a machine", folder):
                for path in self.data.glob("*.raw"):
                    path.rename(folder / path.name)
        finally:
            self.destroy()
        launch = replace(self.launch, memory=replace(memory, shared=False))
        return QemuSaved(launch, folder, plugs)

    @property
    def data(self) -> Path:
        """The folder for what is large, made on first use. Raises: InfrastructureError."""
        if self._data is None:
            self._data = lease.make_data_folder(self.launch.scratch)
        return self._data

    def _bring(self, plug: Plug) -> list[str]:
        """Give the machine its own copy of a saved disk: an empty image on top of it."""
        with explain_os_errors("copy a disk", self.data):
            if plug.base is not None:
                shutil.copyfile(plug.base, plug.image(self.data))
            if plug.spec.power_cut:
                plug.log(self.data).touch()
        return plug.options(self.data)

    @property
    def plugs(self) -> tuple[Plug, ...]:
        """Its disks."""
        return self._plugs if self._disks is None else self._disks.plugs

    def cut_power(self) -> Slot:
        """End the machine with no chance to write or flush anything more; gives its room for another.

        Its files stay until ``destroy``. Raises: InfrastructureError.
        """
        self.console()
        self._process.freeze()
        self._process.kill()
        slot, self.slot = self.slot, NO_SLOT
        return slot

    def adopt_disk(self, plug: Plug, content: Path) -> None:
        """Plug in a disk of a machine that ended; ``content`` is moved. Raises: InfrastructureError."""
        self._bay().adopt(plug, content)

    def _remove_folders(self) -> None:
        for folder in (self._folder, self._data):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def attach_disk(self, spec: DiskSpec) -> str:
        return self._bay().attach(spec)

    def detach_disk(self, serial: str) -> None:
        self._bay().detach(serial)

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:
        self._bay().throttle(serial, spec)

    def _bay(self) -> DiskBay:
        if self._disks is None:
            self._disks = DiskBay(self.monitor, self.data, self._plugs)
        return self._disks

    def console(self) -> str:
        path = self._folder / CONSOLE
        if path.exists():
            self._last_console = path.read_text(errors="replace").replace("\r", "")
        return self._last_console

    def destroy(self) -> None:
        self.console()
        self._process.kill()
        if self._channel is not None:
            self._channel.close()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        self.slot.release()
        self._remove_folders()
        if self._died is None:
            self._died = InfrastructureError("the machine was destroyed and is used no more")


def _identity() -> tuple[str, float, bytes]:
    """Name, time and randomness for a machine that starts now; see ``guest.fork.adopt``."""
    return f"kernelfs-{next(_numbers)}", time.time(), os.urandom(_ENTROPY_BYTES)
