"""The vagrant provider: a distribution of its own in every machine, and the kernel under test below it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import (
    InfrastructureError,
    ProviderUnavailable,
    Unsupported,
    UsageError,
)
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.accelerator import Accelerator
from pytest_kernelfs.machines.admission import Admission
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.machines.qemu.accel import choose
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.vagrant import box, direct, places
from pytest_kernelfs.machines.vagrant.commands import Commands, refuse_variables
from pytest_kernelfs.machines.vagrant.daemon import require_libvirt
from pytest_kernelfs.machines.vagrant.instance import Instance
from pytest_kernelfs.machines.vagrant.machine import PROVIDER, VagrantMachine
from pytest_kernelfs.machines.vagrant.settings import VagrantSettings
from pytest_kernelfs.news import tell

# The first may have been a host that was too busy.
_MOST_FAILURES = 2


@final
class VagrantProvider(PlainProvider):
    """One machine at a time; one that a test is done with waits to be put back to how it started."""

    name = PROVIDER

    def __init__(self, settings: Settings, vagrant: VagrantSettings) -> None:
        """Raises: UsageError for what does not go together."""
        if vagrant.hypervisor != "libvirt" and not (vagrant.box or vagrant.folder):
            raise UsageError(
                f"--kernelfs-vagrant-hypervisor {vagrant.hypervisor}: the box built here is for libvirt; "
                "name one with --kernelfs-vagrant-box, such as debian/bookworm64"
            )
        if vagrant.folder is not None and not (vagrant.folder / "Vagrantfile").is_file():
            raise UsageError(f"--kernelfs-vagrant-folder: there is no Vagrantfile in {vagrant.folder}")
        # Vagrant's home, which has the keys to its machines.
        refuse_variables(places.plugins_of_user() if vagrant.box or vagrant.folder else settings.cache_root)
        self._settings = settings
        self._vagrant = vagrant
        self._cache = Cache(settings.cache_root)
        self._settled: Accelerator | None = None
        self._refused: ProviderUnavailable | None = None
        self._failures: dict[tuple[Kernel, MachineSpec], list[InfrastructureError]] = {}
        self._idle: tuple[tuple[Kernel, MachineSpec], Instance] | None = None
        self._in_use: dict[Instance, tuple[Kernel, MachineSpec]] = {}

    def describe(self) -> str:
        what = self._vagrant.box or ("the Vagrantfile's box" if self._vagrant.folder else "a box built here")
        return f"vagrant {self._version}, {self._vagrant.hypervisor}, {what}"

    @cached_property
    def _version(self) -> str:
        return Commands(Path("/"), box.QUIET).version()

    @property
    def _boots_directly(self) -> bool:
        """Whether the hypervisor is given the kernel; else the machine's own boot loader has to start it."""
        return self._vagrant.hypervisor == "libvirt" and self._vagrant.folder is None

    def prove(self, kernel: Kernel) -> None:
        """See that libvirt answers, build the box and settle the accelerator, if that is for us to do."""
        if self._boots_directly:
            require_libvirt()
        self._home()
        if self._vagrant.hypervisor == "libvirt":
            self._accelerator(kernel)

    def _accelerator(self, kernel: Kernel) -> Accelerator:
        if self._settled is None:
            assert kernel.image is not None
            self._settled = choose(self._settings.accel, find_qemu(), kernel.image, self._cache)
        return self._settled

    def _home(self) -> dict[str, str]:
        """Where Vagrant has its boxes: in our cache if the box is ours, else where the user has them."""
        if self._vagrant.box or self._vagrant.folder:
            return {}
        return {"VAGRANT_HOME": str(box.home_with_box(self._cache))}

    def start(self, kernel: Kernel, spec: MachineSpec) -> Machine:
        """A machine as it was when it came up: one that waits is put back to that, which takes seconds."""
        instance = self._waiting(kernel, spec) or self._make(kernel, spec)
        try:
            machine = VagrantMachine(instance, self._take_back, self._settings.boot_timeout)
        except BaseException:
            instance.destroy()
            raise
        self._in_use[instance] = (kernel, spec)
        return machine

    def _waiting(self, kernel: Kernel, spec: MachineSpec) -> Instance | None:
        """The machine that waits, if it is such a one; another is destroyed: it would only take room."""
        if self._idle is None:
            return None
        (wanted, instance), self._idle = self._idle, None
        if wanted == (kernel, spec) and instance.restore():
            return instance
        instance.destroy()
        return None

    def _take_back(self, instance: Instance) -> None:
        wanted = self._in_use.pop(instance)
        if self._idle is not None:
            self._idle[1].destroy()
        self._idle = (wanted, instance)

    def _make(self, kernel: Kernel, spec: MachineSpec) -> Instance:
        """A new machine. What cannot be had is not tried again, for minutes, for every test of the run."""
        if self._refused is not None:
            raise self._refused
        failures = self._failures.setdefault((kernel, spec), [])
        if len(failures) >= _MOST_FAILURES:
            raise failures[-1]
        try:
            return self._make_anew(kernel, spec)
        except ProviderUnavailable as error:
            self._refused = error
            raise
        except InfrastructureError as error:
            failures.append(error)
            raise

    def _make_anew(self, kernel: Kernel, spec: MachineSpec) -> Instance:
        timeout = self._settings.boot_timeout
        folder = self._vagrant.folder or places.shipped_folder()
        home = self._home()
        slot = Admission(spec.memory, self._settings.max_vms, tell).enter(timeout)
        try:
            place = places.make_place(self._settings.cache_root, folder)
            place = place.noted({**box.QUIET, **home, **self._environment(place, kernel, spec)})
            instance = Instance(place, kernel, self._vagrant.hypervisor, slot)
        except BaseException:
            slot.release()
            raise
        try:
            instance.up(self._cache.root / "locks" / "vagrant.lock", timeout)
        except BaseException:
            instance.destroy()
            raise
        return instance

    def _environment(self, place: places.Place, kernel: Kernel, spec: MachineSpec) -> dict[str, str]:
        """What the Vagrantfile reads, under names that begin with KERNELFS_VM_."""
        values = {
            "BOX": self._vagrant.box or ("" if self._vagrant.folder else box.box_name()),
            "MEMORY": str(spec.memory >> 20),
            "CPUS": str(spec.cpus),
            "NAME": place.name,
            "TIMEOUT": f"{self._settings.boot_timeout:.0f}",
        }
        if self._vagrant.hypervisor == "libvirt":
            values["ACCEL"] = self._accelerator(kernel).name
            values["CONSOLE"] = str(place.console)
        if self._boots_directly:
            values.update(direct.boot_files(self._cache, kernel, place.public, spec.boot_parameters))
        elif spec.boot_parameters:
            raise Unsupported(
                f"the machine's own boot loader starts the kernel, so it cannot be given the parameters "
                f"{spec.boot_parameters!r}; the provider qemu can (--kernelfs-provider qemu)"
            )
        return {f"KERNELFS_VM_{name}": value for name, value in values.items()}

    def collect(self) -> list[str]:
        return places.collect(self._settings.cache_root)

    def close(self) -> None:
        for instance in [*self._in_use, *([self._idle[1]] if self._idle else [])]:
            instance.destroy()
        self._in_use.clear()
        self._idle = None
