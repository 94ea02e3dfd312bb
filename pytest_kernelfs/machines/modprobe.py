"""Loads kernel modules in a guest, bringing from the host those that its archive left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.guest import files, ram_disks
from pytest_kernelfs.guest.references import BROUGHT
from pytest_kernelfs.machines.initramfs.modules import ModuleIndex, module_name, plain_name, read_module

if TYPE_CHECKING:
    from pytest_kernelfs.machines.vm import VM


# lib/kstrtox.c, kstrtobool, and Python's own.
_TRUTHS = {"y": 1, "on": 1, "true": 1, "n": 0, "off": 0, "false": 0}


def load(vm: VM, name: str, parameters: Mapping[str, object]) -> None:
    """See ``VM.modprobe``."""
    words = [f"{key}={value}" for key, value in parameters.items()]
    there = bool(parameters) and vm.guest(ram_disks.is_loaded, module_name(name))
    # What the kernel says of this module begins here; another may not know what this one does.
    since = vm.mark_dmesg(f"modprobe {name}") if parameters else 0
    tried = vm.run(["modprobe", name, *words])
    if tried.succeeded:
        if there:
            _demand_same(vm, name, parameters)
        else:
            _demand_taken(vm, name, parameters, since)
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
    _demand_taken(vm, name, parameters, since)


def _demand_same(vm: VM, name: str, parameters: Mapping[str, object]) -> None:
    """Raises: GuestCommandError if a module that was loaded before has another value for a parameter.

    Nothing is known of one that it does not show.
    """
    for key, value in parameters.items():
        found = vm.guest(files.text, f"/sys/module/{module_name(name)}/parameters/{key}")
        if found and _number(found) != _number(str(value)):
            raise GuestCommandError(
                f"the module {name} is loaded already, with {key}={found}, and would be given {key}={value} "
                "only when it is loaded; unload it before (modprobe -r), or set what can be set while it is "
                "loaded with the fixture module_parameter"
            )


def _number(text: str) -> int | str:
    """A value to be compared: the kernel shows truths as Y and N, and takes 010 for octal."""
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    for base in (0, 8):
        try:
            return int(text, base)
        except ValueError:
            continue
    return text


def _demand_taken(vm: VM, name: str, parameters: Mapping[str, object], since: int) -> None:
    """Raises: GuestCommandError for a parameter that the kernel has ignored, of which only its log tells."""
    if not parameters:
        return
    log = [record.text for record in vm.dmesg(since)]
    ignored = [key for key in parameters if any(f"unknown parameter '{key}' ignored" in text for text in log)]
    if ignored:
        vm.run(["modprobe", "-r", name])
        listed = vm.run(["modinfo", "-F", "parm", name]).stdout.splitlines()
        known = ", ".join(sorted(line.partition(":")[0] for line in listed))
        raise GuestCommandError(
            f"the module {name} of kernel {vm.kernel.release} has no parameter {', '.join(ignored)}"
            + (f"; it has {known}" if known else "")
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
