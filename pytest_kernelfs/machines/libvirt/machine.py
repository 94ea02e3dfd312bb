"""A machine that libvirt runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from pytest_kernelfs.errors import InfrastructureError, KernelfsError
from pytest_kernelfs.guest.init import PORT_NAME, WAITING
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.admission import NO_SLOT, Slot
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel
from pytest_kernelfs.machines.conversing import ConversingMachine
from pytest_kernelfs.machines.libvirt.api import explained, library
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.machines.libvirt.disks import DiskBay
from pytest_kernelfs.machines.libvirt.domain import CONSOLE_ALIAS, Plug, with_disks
from pytest_kernelfs.machines.libvirt.ending import end_domain
from pytest_kernelfs.machines.libvirt.storage import Storage
from pytest_kernelfs.machines.libvirt.streams import ConsoleStream, StreamSocket
from pytest_kernelfs.machines.machine import DiskSpec, MachineSpec

_POLL_S = 0.005
_SAVE_TIMEOUT_S = 30.0
# What a machine printed last may be on its way still when it has ended.
_LAST_LINES_S = 2.0
_LOST = -1


@dataclass(frozen=True, eq=False)
class LibvirtSaved:
    """A machine that was saved: its state lies at ``path``, its disks are ``plugs``.

    ``root`` is what it had written to the system that it booted, "" if that is in its memory.

    libvirt brings it back under the same uuid, so that one lives at a time.
    """

    kernel: Kernel
    spec: MachineSpec
    uuid: str
    path: str
    root: str
    plugs: tuple[Plug, ...]
    storage: Storage

    def discard(self) -> None:
        """Remove it; a machine that runs from it goes on."""
        self.storage.remove(self.path, self.root, *(plug.path for plug in self.plugs))


@final
class LibvirtMachine(ConversingMachine):
    """A machine from its domain on; see ``machines.machine.Machine``."""

    def __init__(
        self,
        domain: Any,
        kernel: Kernel,
        spec: MachineSpec,
        storage: Storage,
        root: str = "",
        plugs: Sequence[Plug] = (),
    ) -> None:
        """Take over a domain that is paused, listen to its console, and have it run.

        Raises: InfrastructureError; the domain is to be ended with ``destroy`` then, too.
        """
        super().__init__(kernel)
        self.spec = spec
        self.slot: Slot = NO_SLOT
        self.uuid: str = domain.UUIDString()
        self.name: str = domain.name()
        self._domain = domain
        self._storage = storage
        self._root = root
        self._ended = threading.Event()
        self._reason = _LOST
        self._disks = DiskBay(domain, storage, plugs)
        self._console: ConsoleStream | None = None
        self._carrier: StreamSocket | None = None
        self.gone = False
        """Whether its domain was ended."""
        self._connection.watch(self.uuid, self._on_end)

    def __repr__(self) -> str:
        return f"<LibvirtMachine {self.kernel.release} {self.name} {'running' if self.alive else 'gone'}>"

    @property
    def _connection(self) -> Connection:
        return self._storage.connection

    def _explained(self, what: str) -> Any:
        return explained(what, uri=self._connection.uri)

    def run(self) -> None:
        """Listen to the console, and have the machine run. Raises: InfrastructureError."""
        with self._explained("start a machine"):
            stream = self._new_stream()
            self._domain.openConsole(None, stream, library().VIR_DOMAIN_CONSOLE_FORCE)
            self._console = ConsoleStream(stream)
            self._domain.resume()

    def _new_stream(self) -> Any:
        return self._connection.handle.newStream(library().VIR_STREAM_NONBLOCK)

    def _open_channel(self, deadline: float) -> GuestChannel:  # noqa: ARG002  (it is there at once)
        with self._explained("open the channel to a machine"):
            stream = self._new_stream()
            self._domain.openChannel(PORT_NAME, stream, library().VIR_DOMAIN_CHANNEL_FORCE)
            self._carrier = StreamSocket(stream)
        return GuestChannel(self._carrier.near)

    def _on_end(self, reason: int) -> None:
        """Told by the thread that serves libvirt's events."""
        self._reason = reason
        self._ended.set()
        if reason == _LOST and self._carrier is not None:
            # Its stream waits for what nobody will send any more.
            self._carrier.close()

    def has_ended(self, within: float = 0.0) -> bool:
        if not within:
            return self._ended.is_set()
        ended = self._ended.wait(within)
        if ended and self._console is not None:
            self._console.wait_end(_LAST_LINES_S)
        return ended

    def _complaint(self) -> str:
        """How the machine ended, if not by its kernel's wish."""
        libvirt = library()
        if not self._ended.is_set() or self._reason == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
            return ""
        reasons = {
            _LOST: "the connection to libvirt broke",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: "somebody destroyed its domain",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: "QEMU crashed or was killed",
            libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: "QEMU failed",
        }
        return reasons.get(self._reason, f"libvirt's reason is {self._reason}")

    def _why_it_ended(self) -> KernelfsError:
        if self._reason == _LOST:
            return InfrastructureError(self._connection.broken())
        complaint = self._complaint()
        if not complaint:
            return self._shut_down()
        return InfrastructureError(
            f"the machine {self.name} ended during the test ({complaint}); run it again"
        )

    def console(self) -> str:
        if self._console is None:
            return ""
        return self._console.printed.decode(errors="replace").replace("\r", "")

    def sysrq(self, keys: str, timeout: float) -> str:
        if self.has_ended():
            raise self._died or self._explain("before a sysrq key was pressed")
        try:
            return self._press_keys(_Line(self._domain, self._console, self.has_ended), keys, timeout)
        except (ChannelLost, InfrastructureError, OSError) as error:
            raise self._cannot_press(error) from None

    def attach_disk(self, spec: DiskSpec) -> str:
        return self._disks.attach(spec)

    def detach_disk(self, serial: str) -> None:
        self._disks.detach(serial)

    def throttle_disk(self, serial: str, spec: DiskSpec) -> None:
        self._disks.throttle(serial, spec)

    @property
    def plugs(self) -> tuple[Plug, ...]:
        """Its disks."""
        return self._disks.plugs

    def adopt_disk(self, plug: Plug) -> None:
        """Attach a disk of a machine that ended. Raises: InfrastructureError."""
        self._disks.adopt(plug)

    def save(self) -> LibvirtSaved:
        """End the conversation and save the machine once it waits for the next; it ends with that."""
        path = self._storage.new_path("state")
        try:
            self._wait_until_it_waits()
            with self._explained("save a machine"):
                self._domain.saveFlags(path, None, library().VIR_DOMAIN_SAVE_RUNNING)
        except BaseException:
            self.destroy()
            self._storage.remove(path)
            raise
        self._end(keep_disks=True, keep_root=True)
        return LibvirtSaved(self.kernel, self.spec, self.uuid, path, self._root, self.plugs, self._storage)

    def _wait_until_it_waits(self) -> None:
        deadline = time.monotonic() + _SAVE_TIMEOUT_S
        waited = self.console().count(WAITING)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        while self.console().count(WAITING) == waited:
            if self.has_ended() or time.monotonic() > deadline:
                raise InfrastructureError(
                    f"the machine with kernel {self.kernel.release} does not wait for the host, so it cannot "
                    "be saved"
                )
            time.sleep(_POLL_S)

    def cut_power(self) -> Slot:
        """End the machine with no chance to write anything more; its disks stay. Gives its room for another.

        Raises: InfrastructureError.
        """
        with self._explained("stop a machine"):
            self._domain.suspend()
        slot, self.slot = self.slot, NO_SLOT
        self._end(keep_disks=True)
        return slot

    def destroy(self) -> None:
        self._end(keep_disks=False)

    def _end(self, *, keep_disks: bool, keep_root: bool = False) -> None:
        self._connection.forget(self.uuid)
        if self._died is None:
            self._died = InfrastructureError("the machine was destroyed and is used no more")
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._console is not None:
            self._console.close()
        if not self.gone:
            self.gone = True
            end_domain(self._connection, self.uuid)
            if not keep_root:
                self._storage.remove(self._root)
            if not keep_disks:
                self._storage.remove(*(plug.path for plug in self.plugs))
        self.slot.release()


@final
class _Line:
    """The serial console as a ``serial_keys.SerialLine``."""

    def __init__(self, domain: Any, console: ConsoleStream | None, ended: Callable[[], bool]) -> None:
        assert console is not None
        self._domain = domain
        self._console = console
        self._seen = len(console.printed)
        self.ended = ended

    def send_break(self, timeout: float) -> None:  # noqa: ARG002  (libvirt has deadlines of its own)
        """See ``SerialLine``, as all of these."""
        import libvirt_qemu

        command = {"execute": "chardev-send-break", "arguments": {"id": CONSOLE_ALIAS}}
        try:
            libvirt_qemu.qemuMonitorCommand(self._domain, json.dumps(command), 0)
        except library().libvirtError as error:
            raise InfrastructureError(f"libvirt does not pass on a BREAK: {error}") from None

    def type(self, text: bytes) -> None:
        self._console.type(text)

    def read(self) -> bytes:
        new = self._console.printed[self._seen :]
        self._seen += len(new)
        return new


def restore(saved: LibvirtSaved, sources: dict[str, str]) -> Any:
    """The paused domain of a saved machine; ``sources`` are other files for its disks, old path -> new.

    Raises: InfrastructureError.
    """
    libvirt = library()
    handle = saved.storage.connection.handle
    with explained("restore a machine", uri=saved.storage.connection.uri):
        xml = with_disks(handle.saveImageGetXMLDesc(saved.path, 0), sources) if sources else None
        handle.restoreFlags(saved.path, xml, libvirt.VIR_DOMAIN_SAVE_PAUSED)
        return handle.lookupByUUIDString(saved.uuid)
