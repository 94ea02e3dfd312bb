"""The qemu provider: boots each kernel once, and forks the machines it hands out from there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import SCRATCH, Cache, touch
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.accelerator import Accelerator
from pytest_kernelfs.machines.admission import NO_SLOT, Admission, Slot
from pytest_kernelfs.machines.conversing import BootPanic
from pytest_kernelfs.machines.disk_image import DiskImage
from pytest_kernelfs.machines.housekeeping import tidy
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Saved, Settings
from pytest_kernelfs.machines.qemu import power, root, template
from pytest_kernelfs.machines.qemu.accel import choose, remembered_kvm_problem
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.qemu.command import Launch, Memory
from pytest_kernelfs.machines.qemu.disks import Plug
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.saved import QemuSaved, copy_memory
from pytest_kernelfs.news import tell
from pytest_kernelfs.shortage import Shortage

# A fork answers after 0.2 s; on a host under heavy load it may take many times as long.
_RESTORE_TIMEOUT_S = 30.0
_SAVE_TIMEOUT_S = 30.0
_TOO_LITTLE = 32 << 20


@final
class QemuProvider:
    """Runs machines in QEMU on this host; see ``machines.machine.Provider``."""

    name = "qemu"
    isolation = "test"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._image = DiskImage.read(settings.image) if settings.image is not None else None
        self.cache = Cache(settings.cache_root)
        self._scratch = settings.cache_root / SCRATCH
        self._templates = template.TemplateStore(self.cache)
        self._accelerator: Accelerator | None = None
        self._admissions: dict[MachineSpec, Admission] = {}
        self._launches: dict[tuple[Kernel, MachineSpec], Launch] = {}
        self._booted: set[Launch] = set()  # for want of a template that works

    def describe(self) -> str:
        """Raises: ProviderUnavailable if there is no usable QEMU."""
        qemu = find_qemu()
        image = "" if self._image is None else f", image {self._image.path}"
        return f"qemu {qemu.version}, accelerator {self._known_accelerator()}{image}"

    def _known_accelerator(self) -> str:
        if self._accelerator is not None:
            return str(self._accelerator)
        if self._settings.accel == "tcg":
            return "TCG (as asked)"
        problem = remembered_kvm_problem(find_qemu(), self.cache)
        if problem is None:
            return "to be proved by the first kernel"
        return f"TCG ({problem})" if problem else "KVM (proved by running a guest)"

    def own_kernel(self) -> None:
        return None

    def userland(self) -> str:
        return "" if self._image is None else self._image.identity

    def prove(self, kernel: Kernel) -> None:
        """Settle the accelerator. Raises: ProviderUnavailable if KVM is demanded and does not work."""
        self.accelerator(kernel)

    def accelerator(self, kernel: Kernel) -> Accelerator:
        """What machines are accelerated with, settled once with this kernel. Raises: as ``prove``."""
        if self._accelerator is None:
            self._accelerator = choose(self._settings.accel, find_qemu(), kernel.boot_image, self.cache)
        return self._accelerator

    def start(self, kernel: Kernel, spec: MachineSpec) -> QemuMachine:
        """A fork of the kernel's template, which is made first if there is none.

        A template that cannot be restored is thrown away and made anew, once; if that does not help,
        machines of this kind boot for the rest of the run, which is news.
        """
        launch = self._launch(kernel, spec)
        with self._room(spec) as slot:
            return self._start(launch, slot)

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> QemuMachine | None:
        """A fork, if there is a template and room for a machine."""
        launch = self._launches.get((kernel, spec))
        if launch is None or launch in self._booted:
            return None
        folder = self._templates.path(template.template_key(launch))
        slot = self._admission(spec).try_enter() if folder.is_dir() else None
        if slot is None:
            return None
        touch(folder)
        with slot.given_back_on_failure(), template.in_use(folder):
            template.check(folder)
            return self._restore(launch, folder, slot)

    @contextmanager
    def _room(self, spec: MachineSpec) -> Iterator[Slot]:
        """A slot, waited for; it is given back if the block fails."""
        slot = self._admission(spec).enter(self._settings.boot_timeout)
        with slot.given_back_on_failure():
            yield slot

    def _admission(self, spec: MachineSpec) -> Admission:
        if spec not in self._admissions:
            self._admissions[spec] = Admission(spec.memory, self._settings.max_vms, tell)
        return self._admissions[spec]

    def _start(self, launch: Launch, slot: Slot) -> QemuMachine:
        if launch not in self._booted:
            try:
                return self._from_template(launch, lambda folder: self._restore(launch, folder, slot))
            except _ForksFail as failure:
                self._booted.add(launch)
                tell(f"kernel {launch.kernel.release} cannot be forked, so its machines boot: {failure}")
        return self._boot(launch, slot)

    def _boot(self, launch: Launch, slot: Slot) -> QemuMachine:
        machine = QemuMachine(launch, slot)
        try:
            machine.wait_ready(self._settings.boot_timeout)
        except BaseException:
            machine.destroy()
            raise
        return machine

    def _launch(self, kernel: Kernel, spec: MachineSpec) -> Launch:
        """How such a machine comes up; its initial ramdisk is there and will not be removed soon."""
        launch = self._launches.get((kernel, spec))
        if launch is not None:
            touch(launch.initramfs.parent)
            if launch.initramfs.exists():  # others tidy the cache, too
                return launch
        accel = self.accelerator(kernel).name
        initramfs = build_initramfs(self.cache, kernel)
        self._launches[kernel, spec] = Launch(
            find_qemu(),
            accel,
            kernel,
            initramfs,
            spec,
            scratch=self._scratch,
            image=self._image,
            partition=self._settings.image_partition,
        )
        return self._launches[kernel, spec]

    def _from_template(self, launch: Launch, restore: Callable[[Path], QemuMachine]) -> QemuMachine:
        """A machine that ``restore`` made from the folder of the template, which is made if there is none.

        One that is unusable is thrown away and made anew, once. Raises: _ForksFail if that does not help,
        or there is no room for a template; InfrastructureError if the kernel does not boot, or the host
        could not restore it now.
        """
        key = template.template_key(launch)
        problem = ""
        for _ in range(2):
            folder = self._template(key, launch)
            opened = template.identity(folder)
            try:
                return self._restored(folder, restore)
            except template.Unusable as error:
                self._templates.discard(key, opened)
                problem = str(error)
        raise _ForksFail(problem)

    def _restored(self, folder: Path, restore: Callable[[Path], QemuMachine]) -> QemuMachine:
        with template.in_use(folder):
            template.check(folder)
            return restore(folder)

    def _template(self, key: str, launch: Launch) -> Path:
        try:
            self._templates.check_room(key)
        except InfrastructureError as error:
            raise _ForksFail(str(error)) from None
        made_before = self._templates.path(key).is_dir()
        folder = self._templates.get(key, lambda folder: self._build(launch, folder))
        if not made_before:
            with template.in_use(folder):
                tidy(self.cache, self._settings.cache_size)
        return folder

    def _build(self, launch: Launch, folder: Path) -> None:
        """Boot the kernel once, with its memory in a file, and save it while it waits for the host."""
        start = time.monotonic()
        try:
            machine = self._boot_for_good(launch, folder / template.MEMORY)
        except InfrastructureError:
            # QEMU dies on the spot when its memory file cannot grow; the kernel is not to blame for that.
            if shutil.disk_usage(folder).free < _TOO_LITTLE:
                full = f"the disk of {self.cache.root} filled up while the kernel booted"
                raise _ForksFail(full) from None
            raise
        try:
            machine.suspend(folder / template.STATE, _SAVE_TIMEOUT_S)
            machine.keep_root(folder)
        finally:
            machine.destroy()
        facts = {"kernel": launch.kernel.release, "seconds": round(time.monotonic() - start, 2)}
        template.finish(folder, launch.kernel.boot_image, facts)

    def _boot_for_good(self, launch: Launch, memory: Path) -> QemuMachine:
        """Boot with the memory in a file.

        Under emulation a kernel that patches its own code as it boots panics once in a great while, where
        it boots well the next time; so a panic is believed the second time only.
        """
        backed = template.backed(launch, Memory(memory, shared=True))
        # It lives in the slot of the fork that waits for it.
        try:
            return self._boot(backed, NO_SLOT)
        except BootPanic:
            if launch.accel != "tcg":
                raise
        memory.unlink(missing_ok=True)
        return self._boot(backed, NO_SLOT)

    def _restore(self, launch: Launch, folder: Path, slot: Slot) -> QemuMachine:
        """A fork of the template in ``folder``. Raises: as ``_resume``."""
        memory = Memory(folder / template.MEMORY, shared=False)
        if launch.image is not None:
            launch = replace(launch, layers=(folder / root.LAYER,))
        return self._resume(template.backed(launch, memory, incoming=True), folder, slot)

    def _resume(
        self,
        launch: Launch,
        folder: Path,
        slot: Slot,
        plugs: Sequence[Plug] = (),
        data: Path | None = None,
    ) -> QemuMachine:
        """A machine that goes on from the state in ``folder``; only a machine that runs takes the slot.

        ``data`` is as for ``QemuMachine``. Raises: template.Unusable if QEMU runs and does not go on from
        there; InfrastructureError.
        """
        machine = QemuMachine(launch, NO_SLOT, plugs, data)
        try:
            machine.resume(folder / template.STATE, _RESTORE_TIMEOUT_S)
            machine.wait_ready(_RESTORE_TIMEOUT_S)
        except BaseException as error:
            was_killed = machine.was_killed
            machine.destroy()
            if not isinstance(error, InfrastructureError) or isinstance(error, Shortage):
                raise
            if was_killed:  # as the host does when its memory runs out: not for the state that it read
                raise Shortage(str(error)) from error
            raise template.Unusable(str(error)) from error
        machine.slot = slot
        return machine

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> QemuMachine:
        """A fork whose memory is a copy of the template's, so that it can be saved in its turn."""
        launch = self._launch(kernel, spec)
        with self._room(spec) as slot:
            try:
                return self._from_template(
                    launch, lambda folder: self._restore_writable(launch, folder, slot)
                )
            except _ForksFail as failure:
                raise InfrastructureError(
                    f"kernel {kernel.release} cannot be forked, so no machine can be prepared: {failure}"
                ) from None

    def _restore_writable(self, launch: Launch, folder: Path, slot: Slot) -> QemuMachine:
        data = lease.make_data_folder(self._scratch)
        try:
            memory = Memory(copy_memory(folder, data), shared=True)
            if launch.image is not None:
                # The template may be gone before the forks of the machine are.
                launch = replace(launch, layers=(root.share_layer(folder / root.LAYER, data),))
            return self._resume(template.backed(launch, memory, incoming=True), folder, slot, data=data)
        except BaseException:
            shutil.rmtree(data, ignore_errors=True)
            raise

    def fork(self, saved: Saved) -> QemuMachine:
        """A machine that goes on from a saved one. Raises: InfrastructureError."""
        assert isinstance(saved, QemuSaved)
        with self._room(saved.launch.spec) as slot:
            return self._resume(saved.launch, saved.folder, slot, saved.plugs)

    def fork_if_room(self, saved: Saved) -> QemuMachine | None:
        """The same, or None if there is no room now."""
        assert isinstance(saved, QemuSaved)
        slot = self._admission(saved.launch.spec).try_enter()
        if slot is None:
            return None
        with slot.given_back_on_failure():
            return self._resume(saved.launch, saved.folder, slot, saved.plugs)

    def power_cut(
        self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]
    ) -> QemuMachine:
        """Cut the power of a machine; gives another with its disks, in the room of the first."""
        assert isinstance(machine, QemuMachine)
        plugs = machine.plugs
        power.check(plugs, keep)
        launch = self._launch(kernel, machine.launch.spec)
        ready()
        try:
            with machine.cut_power().given_back_on_failure() as slot:
                contents = [power.content(plug, machine.data, keep) for plug in plugs]
                successor = self._start(launch, slot)
                try:
                    for plug, content in zip(plugs, contents, strict=True):
                        successor.adopt_disk(plug, content)
                except BaseException:
                    successor.destroy()
                    raise
        finally:
            machine.destroy()
        return successor

    def collect(self) -> list[str]:
        """Remove what runs that were killed left behind; gives a line for each."""
        return lease.collect(self._scratch)

    def close(self) -> None:
        """Nothing is held."""


class _ForksFail(Exception):
    """Why machines cannot be forked here."""
