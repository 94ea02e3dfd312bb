"""A machine that QEMU runs."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    UsageError,
)
from pytest_kernelfs.guest.init import WAITING
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.admission import NO_SLOT, Slot
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel
from pytest_kernelfs.machines.conversing import ConversingMachine
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.qemu import root
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
from pytest_kernelfs.machines.qemu.sysrq import ConsoleLine, make_console
from pytest_kernelfs.machines.qemu.template import STATE, load_from, save_to
from pytest_kernelfs.shortage import Shortage

_POLL_S = 0.002
_SAVE_TIMEOUT_S = 30.0
# Leaves the memory out of a saved state: it is in its file already.
_KEEP_MEMORY = [{"capability": "x-ignore-shared", "state": True}]


@final
class QemuMachine(ConversingMachine):
    """A machine from its QEMU process on; see ``machines.machine.Machine``."""

    def __init__(
        self, launch: Launch, slot: Slot, plugs: Sequence[Plug] = (), data: Path | None = None
    ) -> None:
        """Start QEMU in a fresh folder; ``slot`` is given back with the machine's end.

        ``plugs`` are disks that a saved state knows. ``data`` is a folder for what is large that holds the
        machine's memory already; it is the machine's from now on, and goes with it.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        super().__init__(launch.kernel)
        self.launch = launch
        self.slot = slot
        self._plugs = tuple(plugs)
        self._folder = lease.make_folder()
        self._data = data
        try:
            lease.note_kernel(self._folder, launch.kernel.release)
            make_console(self._folder)
            disks = [*self._root(), *(option for plug in plugs for option in self._bring(plug))]
            self._process = QemuProcess(qemu_command(launch, self._folder, disks), self._folder)
        except BaseException:
            self._remove_folders()
            raise
        self._monitor: Monitor | None = None
        self._disks: DiskBay | None = None
        self._last_console = ""

    def __repr__(self) -> str:
        state = "running" if self.alive else "gone"
        return f"<QemuMachine {self.kernel.release} pid={self._process.pid} {state}>"

    @property
    def pid(self) -> int:
        """QEMU's process number."""
        return self._process.pid

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL has ended QEMU, as the host sends it when its memory runs out."""
        return self._process.was_killed

    def has_ended(self, within: float = 0.0) -> bool:
        return self._process.ended(within)

    def _complaint(self) -> str:
        return self._process.complaint()

    def _why_it_ended(self) -> KernelfsError:
        complaint = self._process.complaint()
        if complaint == "exit code 0":
            return self._shut_down()
        return InfrastructureError(f"QEMU ended during the test ({complaint}); run the test again")

    def _open_channel(self, deadline: float) -> GuestChannel:
        return GuestChannel(self._connect(AGENT_SOCKET, deadline))

    def _connect(self, name: str, deadline: float) -> socket.socket:
        """Connect to one of QEMU's sockets: it is there a moment before anybody listens."""
        path = str(self._folder / name)
        while True:
            with explain_os_errors("connect to a machine", self._folder):
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

    def sysrq(self, keys: str, timeout: float) -> str:
        if self._process.ended():
            raise self._died or self._explain("before a sysrq key was pressed")
        try:
            with closing(ConsoleLine(self.monitor, self._folder, self._process.ended)) as line:
                return self._press_keys(line, keys, timeout)
        except (ChannelLost, InfrastructureError, OSError) as error:
            raise self._cannot_press(error) from None

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
        state.unlink(missing_ok=True)
        self.monitor.execute("migrate", uri=save_to(state))
        self._wait_for(lambda: self._saved() and state.exists(), deadline, "does not save its state")

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
            except GuestTimeout as error:
                raise Shortage(f"{error} within {DEFAULT_TIMEOUT_S:g} s") from None
            except ChannelLost as error:
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
        folder = self.data
        try:
            self.suspend(folder / STATE, _SAVE_TIMEOUT_S)
            plugs = self._bay().make_bases()
            layers = self.keep_root(folder)
            for log in folder.glob("*.log"):
                log.unlink()  # forks have records of their own
            self._data = None  # it goes with what was saved
        finally:
            self.destroy()
        launch = replace(self.launch, memory=replace(memory, shared=False), layers=layers)
        return QemuSaved(launch, folder, plugs)

    @property
    def data(self) -> Path:
        """The folder for what is large, made on first use. Raises: InfrastructureError."""
        if self._data is None:
            self._data = lease.make_data_folder(self.launch.scratch)
        return self._data

    def _root(self) -> list[str]:
        """Give the machine a layer of its own on top of the image that it boots, if it boots one."""
        launch = self.launch
        if launch.image is None:
            return []
        return root.options(launch.image, [*launch.layers, root.make_layer(launch.image, self.data)])

    def keep_root(self, folder: Path) -> tuple[Path, ...]:
        """End the machine, which was suspended, and move what it wrote to its root into ``folder``.

        Gives the layers that its forks need. Raises: InfrastructureError.
        """
        self._process.kill()
        if self.launch.image is None:
            return ()
        with explain_os_errors("save the disks of a machine", folder):
            kept = (self.data / root.LAYER).rename(folder / root.LAYER)
        return (*self.launch.layers, kept)

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
