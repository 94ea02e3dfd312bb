"""Loads kernel modules in a guest, bringing from the host those that its archive left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.guest.references import BROUGHT
from pytest_kernelfs.machines.initramfs.modules import ModuleIndex, module_name, plain_name, read_module

if TYPE_CHECKING:
    from pytest_kernelfs.machines.vm import VM


def load(vm: VM, name: str, parameters: Mapping[str, object]) -> None:
    """See ``VM.modprobe``."""
    words = [f"{key}={value}" for key, value in parameters.items()]
    tried = vm.run(["modprobe", name, *words])
    if tried.succeeded:
        return
    folder = vm.kernel.modules
    index = ModuleIndex(folder) if folder is not None else None
    if folder is None or index is None or not index.has(name):
        raise GuestCommandError(
            f"kernel {vm.kernel.release} has no module {name} ({tried.stderr.strip()}); "
            f'mark the test kernel_needs("module:{name}") to skip it here, or use a kernel that has it, such '
            "as the general flavour of Debian's (--kernelfs-flavour amd64)"
        )
    paths = index.closure([name])
    for relative in paths:
        _insert(
            vm, plain_name(relative), read_module(folder / relative), words if relative == paths[-1] else []
        )


def _insert(vm: VM, relative: str, content: bytes, words: list[str]) -> None:
    if vm.run(["test", "-e", f"/sys/module/{module_name(relative)}"]).succeeded:
        return
    target = f"{BROUGHT}/{relative}"
    vm.put(content, target)
    done = vm.run(["insmod", target, *words])
    if done.failed and "File exists" not in done.stderr:
        raise GuestCommandError(
            f"kernel {vm.kernel.release} refused the module {module_name(relative)}: {done.stderr.strip()}"
        )
