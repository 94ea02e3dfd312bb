"""The libvirt provider: boots each kernel once, and brings back what it saved then for every test."""

from __future__ import annotations

import itertools
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import SCRATCH, Cache
from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import disk_image, lease
from pytest_kernelfs.machines.accelerator import Accelerator, settle
from pytest_kernelfs.machines.admission import NO_SLOT, Admission, Slot
from pytest_kernelfs.machines.boot import kernel_arguments
from pytest_kernelfs.machines.conversing import BootPanic
from pytest_kernelfs.machines.disk_image import DiskImage
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.libvirt import leftovers, proof
from pytest_kernelfs.machines.libvirt.api import explained, library
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.machines.libvirt.domain import Plan, domain_xml
from pytest_kernelfs.machines.libvirt.machine import LibvirtMachine, LibvirtSaved, restore
from pytest_kernelfs.machines.libvirt.owner import Owner
from pytest_kernelfs.machines.libvirt.storage import Storage
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Saved, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.news import tell

# A restored machine answers after half a second; on a host under heavy load it may take many times as long.
_RESTORE_TIMEOUT_S = 60.0
# A machine that has just booted fills about 110 MB.
_ROOM_FOR_STATE = 512 << 20
_PROOF_MEMORY = 512 << 20
# Times vary with what else the hypervisor does: only what is clearly slower than a boot is given up.
_TOO_SLOW = 2.0
# What the console still holds is lost with its machine: a kernel that panics gives libvirt time to read it.
_LATE_END = "panic=2"


@dataclass
class _Quick:
    """What a machine was brought back from, and how long that takes, in seconds, beside a boot."""

    saved: LibvirtSaved
    boot: float


@final
class LibvirtProvider(PlainProvider):
    """Runs machines at a hypervisor that libvirt leads to; see ``machines.machine.Provider``."""

    name = "libvirt"
    isolation = "test"

    def __init__(self, settings: Settings, uri: str) -> None:
        self._settings = settings
        self._image = DiskImage.read(settings.image) if settings.image is not None else None
        self._uri = uri
        self._cache = Cache(settings.cache_root)
        self._scratch = settings.cache_root / SCRATCH
        self._owner = Owner.this_process()
        self._numbers = itertools.count(1)
        self._open: Connection | None = None
        self._storage: Storage | None = None
        self._folders: list[Path] = []
        self._socket_folder = ""
        self._given_up: list[str] = []
        self._accelerator: Accelerator | None = None
        self._quick: dict[tuple[Kernel, MachineSpec], _Quick | None] = {}
        self._running: dict[str, LibvirtMachine] = {}
        self._admissions: dict[MachineSpec, Admission] = {}

    def describe(self) -> str:
        """Raises: ProviderUnavailable if the hypervisor cannot be reached."""
        connection = self._connection()
        image = "" if self._image is None else f", image {self._image.path}"
        accelerator = self._known_accelerator(connection)
        return f"{connection.versions} at {self._uri}, accelerator {accelerator}{image}"

    def _known_accelerator(self, connection: Connection) -> str:
        if self._accelerator is not None:
            return str(self._accelerator)
        if self._settings.accel == "tcg":
            return "TCG (as asked)"
        problem = proof.remembered(connection, self._cache)
        if problem is None:
            return "to be proved by the first kernel"
        return f"TCG ({problem})" if problem else "KVM (proved by running a guest)"

    def userland(self) -> str:
        return "" if self._image is None else self._image.identity

    def prove(self, kernel: Kernel) -> None:
        """Raises: ProviderUnavailable if KVM is demanded and does not work; InfrastructureError."""
        self._accelerate(kernel)

    def _connection(self) -> Connection:
        """An open connection; another if the last broke. Raises: ProviderUnavailable."""
        if self._open is None or not self._open.alive:
            self._forget()
            self._open = Connection(self._uri)
            if self._given_up:
                leftovers.collect(self._open, self._given_up)
                self._given_up.clear()
        return self._open

    def _forget(self) -> None:
        """What was there over a connection that broke is given up: nobody knows what became of it."""
        if self._storage is not None:
            self._given_up.append(self._owner.token)
        if self._open is not None:
            self._open.close()
        self._open = self._storage = None
        self._quick.clear()
        self._running.clear()

    def _store(self) -> Storage:
        """Where this run keeps its files there. Raises: as ``_connection``; InfrastructureError."""
        connection = self._connection()
        if self._storage is None:
            self._owner = replace(self._owner, since=int(time.time()))
            folder = self._own_folder() if connection.reads_our_files else None
            self._storage = Storage(connection, self._owner.token, folder)
        return self._storage

    def _own_folder(self) -> Path:
        self._folders.append(lease.make_data_folder(self._scratch))
        return self._folders[-1]

    def _file(self, path: Path) -> str:
        """A file of ours as the hypervisor knows it. Raises: InfrastructureError."""
        return str(path) if self._connection().reads_our_files else self._store().upload(path)

    def _accelerate(self, kernel: Kernel) -> Accelerator:
        if self._accelerator is None:
            connection = self._connection()

            def without_root(name: str) -> str:
                spec = MachineSpec(_PROOF_MEMORY, 1)
                return domain_xml(self._plan(kernel, spec, name, "kvm", ""))

            self._accelerator = settle(
                self._settings.accel, lambda: proof.problem_with_kvm(connection, self._cache, without_root)
            )
        return self._accelerator

    def _plan(self, kernel: Kernel, spec: MachineSpec, name: str, accel: str, initramfs: str) -> Plan:
        if kernel.image is None:
            raise UsageError(f"the provider libvirt boots kernels, and {kernel.source} has no image to boot")
        # Its owner is named like its storage.
        self._store()
        number = next(self._numbers)
        return Plan(
            name=f"kernelfs-{self._owner.process.pid}-{number}-{name[:8]}",
            uuid=name,
            owner=self._owner.token,
            accel=accel,
            spec=spec,
            kernel=self._file(kernel.image),
            initramfs=initramfs,
            arguments=self._arguments(accel, spec),
            socket=f"{self._sockets()}/a{number}",
            libvirt=self._connection().handle.getLibVersion(),
        )

    def _arguments(self, accel: str, spec: MachineSpec) -> str:
        image = "" if self._image is None else disk_image.arguments(self._settings.image_partition)
        return " ".join(filter(None, [kernel_arguments(accel), _LATE_END, image, spec.boot_parameters]))

    def _sockets(self) -> str:
        """A folder at the hypervisor with a short path."""
        if not self._connection().reads_our_files:
            return self._store().path
        if not self._socket_folder:
            self._folders.append(lease.make_folder())
            self._socket_folder = str(self._folders[-1])
        return self._socket_folder

    def start(self, kernel: Kernel, spec: MachineSpec) -> LibvirtMachine:
        """A machine that was saved when it had booted, brought back; it boots if that is no slower."""
        with self._room(spec) as slot:
            return self._start(kernel, spec, slot)

    def _start(self, kernel: Kernel, spec: MachineSpec, slot: Slot) -> LibvirtMachine:
        self._connection()
        key = (kernel, spec)
        if key not in self._quick:
            self._quick[key] = self._prepare(kernel, spec)
        quick = self._quick[key]
        if quick is None or self._runs(quick.saved.uuid):
            return self._in_slot(self._boot(kernel, spec), slot)
        begin = time.monotonic()
        try:
            machine = self._restore(quick.saved)
        except InfrastructureError as error:
            if not self._connection().alive:
                raise
            self._quick[key] = None
            tell(f"machines with kernel {kernel.release} cannot be restored, so every one boots: {error}")
            return self._in_slot(self._boot(kernel, spec), slot)
        if time.monotonic() - begin > _TOO_SLOW * quick.boot:
            quick.saved.discard()
            self._quick[key] = None
        return self._in_slot(machine, slot)

    def _prepare(self, kernel: Kernel, spec: MachineSpec) -> _Quick | None:
        """Boot the kernel and save it while it waits for the host; None if there is no room to save it."""
        begin = time.monotonic()
        machine = self._boot(kernel, spec)
        boot = time.monotonic() - begin
        try:
            self._store().check_room(_ROOM_FOR_STATE, "a saved machine")
            return _Quick(machine.save(), boot)
        except InfrastructureError as error:
            if not self._connection().alive:
                raise
            tell(f"machines with kernel {kernel.release} cannot be saved, so every one boots: {error}")
            return None
        finally:
            machine.destroy()

    def _boot(self, kernel: Kernel, spec: MachineSpec) -> LibvirtMachine:
        """Boot a machine, and wait until it answers.

        Under emulation a kernel that patches its own code as it boots panics once in a great while, where
        it boots well the next time; so a panic is believed the second time only.
        """
        try:
            return self._boot_once(kernel, spec)
        except BootPanic:
            if self._accelerate(kernel).name != "tcg":
                raise
        return self._boot_once(kernel, spec)

    def _boot_once(self, kernel: Kernel, spec: MachineSpec) -> LibvirtMachine:
        accelerator = self._accelerate(kernel)
        initramfs = self._file(build_initramfs(self._cache, kernel))
        plan = self._plan(kernel, spec, str(uuid.uuid4()), accelerator.name, initramfs)
        if self._image is not None:
            plan = replace(plan, root=self._first_layer(self._image))
        libvirt = library()
        # With its end this process takes the domain along, also if it is killed.
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        try:
            with explained("start a machine", uri=self._uri):
                domain = self._connection().handle.createXML(domain_xml(plan), flags)
        except InfrastructureError:
            self._store().remove(plan.root)
            raise
        machine = LibvirtMachine(domain, kernel, spec, self._store(), plan.root)
        return self._ready(machine, self._settings.boot_timeout)

    def _first_layer(self, image: DiskImage) -> str:
        """A file for what a machine writes to the system that it boots. Raises: InfrastructureError."""
        if image.layered and not self._connection().reads_our_files:
            raise UsageError(
                f"--kernelfs-image: {image.path} lies on top of another file; what is brought to the "
                f"hypervisor at {self._uri} has to be one: qemu-img convert -O qcow2"
            )
        return self._store().make_layer(self._file(image.path), image.format, image.size)

    def _restore(self, saved: LibvirtSaved) -> LibvirtMachine:
        """A machine that goes on from a saved one, with disks of its own. Raises: InfrastructureError."""
        storage = saved.storage
        files: dict[str, str] = {}
        try:
            if self._image is not None:
                files[saved.root] = storage.make_layer(saved.root, "qcow2", self._image.size)
            for plug in saved.plugs:
                files[plug.path] = storage.copy_disk(plug.path, plug.spec.size, "disk")
            domain = restore(saved, files)
        except BaseException:
            storage.remove(*files.values())
            raise
        plugs = [replace(plug, path=files[plug.path]) for plug in saved.plugs]
        root = files.get(saved.root, "")
        machine = LibvirtMachine(domain, saved.kernel, saved.spec, storage, root, plugs)
        return self._ready(machine, _RESTORE_TIMEOUT_S)

    def _ready(self, machine: LibvirtMachine, timeout: float) -> LibvirtMachine:
        self._running[machine.uuid] = machine
        try:
            machine.run()
            machine.wait_ready(timeout)
        except BaseException:
            machine.destroy()
            raise
        return machine

    def _runs(self, name: str) -> bool:
        machine = self._running.get(name)
        return machine is not None and not machine.gone

    def _in_slot(self, machine: LibvirtMachine, slot: Slot) -> LibvirtMachine:
        machine.slot = slot
        return machine

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> LibvirtMachine:
        """A machine that has booted by itself: others could not live beside those that are brought back."""
        with self._room(spec) as slot:
            return self._in_slot(self._boot(kernel, spec), slot)

    def fork(self, saved: Saved) -> LibvirtMachine:
        assert isinstance(saved, LibvirtSaved)
        if self._runs(saved.uuid):
            raise InfrastructureError(
                "a machine of this checkpoint is running, and the provider libvirt can run one at a time"
            )
        with self._room(saved.spec) as slot:
            return self._in_slot(self._restore(saved), slot)

    def fork_if_room(self, saved: Saved) -> LibvirtMachine | None:  # noqa: ARG002
        """None: while one machine of a checkpoint runs, there can be no other."""
        return None

    def power_cut(
        self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]
    ) -> LibvirtMachine:
        """Cut the power of a machine; gives another with its disks, in the room of the first."""
        assert isinstance(machine, LibvirtMachine)
        for plug in machine.plugs:
            if keep == "flushed" and plug.spec.cache == "writeback":
                raise UsageError(
                    f"vm.power_cut: the provider libvirt keeps no record of what the disk {plug.serial} has "
                    'flushed; keep="written" would work, and so would cache="writethrough"'
                )
        ready()
        with machine.cut_power().given_back_on_failure() as slot:
            plugs = machine.plugs
            try:
                successor = self._start(kernel, machine.spec, slot)
                try:
                    for plug in plugs:
                        successor.adopt_disk(plug)
                except BaseException:
                    successor.destroy()
                    raise
            except BaseException:
                self._store().remove(*(plug.path for plug in plugs))
                raise
        return successor

    @contextmanager
    def _room(self, spec: MachineSpec) -> Iterator[Slot]:
        """A slot, waited for, if machines take this host's memory; it is given back if the block fails."""
        slot = NO_SLOT
        if self._connection().local:
            if spec not in self._admissions:
                self._admissions[spec] = Admission(spec.memory, self._settings.max_vms, tell)
            slot = self._admissions[spec].enter(self._settings.boot_timeout)
        with slot.given_back_on_failure():
            yield slot

    def collect(self) -> list[str]:
        """Remove what runs that were killed left behind; gives a line for each."""
        return [*lease.collect(self._scratch), *leftovers.collect(self._connection())]

    def close(self) -> None:
        """Remove what this run keeps at the hypervisor."""
        try:
            if self._storage is not None and self._open is not None and self._open.alive:
                self._storage.close()
                self._storage = None
        except InfrastructureError as error:
            tell(f"{error}; a later run, or 'kernelfs gc --libvirt-uri {self._uri}', removes it")
        finally:
            self._forget()
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)
