"""The qemu provider: boots a kernel with our initramfs and hands out the machine."""

from __future__ import annotations

import shutil
from typing import final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu.accel import Accelerator, choose, remembered_kvm_problem
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.qemu.command import qemu_command
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.process import QemuProcess


@final
class QemuProvider:
    """Boots machines in QEMU on this host; see ``machines.machine.Provider``."""

    name = "qemu"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cache = Cache(settings.cache_root)
        self._accelerator: Accelerator | None = None

    def describe(self) -> str:
        """Raises: ProviderUnavailable if there is no usable QEMU."""
        qemu = find_qemu()
        return f"qemu {qemu.version}, accelerator {self._known_accelerator()}"

    def _known_accelerator(self) -> str:
        if self._accelerator is not None:
            return str(self._accelerator)
        if self._settings.accel == "tcg":
            return "TCG (as asked)"
        problem = remembered_kvm_problem(find_qemu(), self._cache)
        if problem is None:
            return "to be proved by the first kernel"
        return f"TCG ({problem})" if problem else "KVM (proved by running a guest)"

    def prove(self, kernel: Kernel) -> Accelerator:
        """Settle the accelerator with this kernel, once.

        Raises: ProviderUnavailable if KVM is demanded and does not work.
        """
        if self._accelerator is None:
            self._accelerator = choose(self._settings.accel, find_qemu(), kernel.image, self._cache)
        return self._accelerator

    def start(self, kernel: Kernel, spec: MachineSpec) -> QemuMachine:
        accelerator = self.prove(kernel)
        initramfs = build_initramfs(self._cache, kernel)
        folder = lease.make_folder()
        try:
            command = qemu_command(find_qemu(), accelerator.name, kernel, initramfs, spec, folder)
            machine = QemuMachine(kernel, QemuProcess(command, folder), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            machine.wait_ready(self._settings.boot_timeout)
        except BaseException:
            machine.destroy()
            raise
        return machine
