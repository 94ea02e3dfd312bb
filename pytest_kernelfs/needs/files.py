"""Needs that the kernel's files and the host's programs settle: nothing has to boot for them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pytest_kernelfs import tools
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.initramfs.modules import ModuleIndex, module_name
from pytest_kernelfs.needs.need import Need


def settle(need: Need, kernel: Kernel, *, lifted: bool) -> bool:
    """Whether files settle the need, so that nothing has to boot.

    ``lifted`` tells that machines have the programs of this host; those of others have to be asked.
    """
    if need.kind == "module":
        return lifted or kernel.modules is not None
    return need.kind == "config" or (lifted and need.kind == "command")


def unmet(need: Need, kernel: Kernel) -> str | None:
    """Why the need is not met; None if it is. ``settle`` must have said that files can tell.

    What the files cannot tell, because the kernel came without them, counts as not met.

    Raises: InfrastructureError for a modules folder that depmod has not seen.
    """
    return _SETTLERS[need.kind](need.value, kernel)


def _config(value: str, kernel: Kernel) -> str | None:
    name, equals, wanted = value.removeprefix("CONFIG_").partition("=")
    if kernel.config is None:
        return (
            f"whether kernel {kernel.version} has CONFIG_{name} cannot be known: it came without its config "
            "file (put config beside the image, or give the package or the build folder)"
        )
    found = kernel.config_option(name)
    if equals:
        shown = "not set" if found is None else found
        return None if found == wanted else f"kernel {kernel.version} has CONFIG_{name} {shown}, not {wanted}"
    return None if found not in (None, "n") else f"kernel {kernel.version} was built without CONFIG_{name}"


def _module(value: str, kernel: Kernel) -> str | None:
    if kernel.modules is None:
        return (
            f"whether kernel {kernel.version} has the module {value} cannot be known: it came without its "
            "modules folder"
        )
    if _loadable(kernel.modules).has(value) or value.replace("-", "_") in _built_in(kernel.modules):
        return None
    return f"kernel {kernel.version} has no module {value}, neither loadable nor built in"


@lru_cache(maxsize=32)
def _loadable(modules: Path) -> ModuleIndex:
    return ModuleIndex(modules)


@lru_cache(maxsize=32)
def _built_in(modules: Path) -> frozenset[str]:
    path = modules / "modules.builtin"
    lines = path.read_text().splitlines() if path.is_file() else []
    return frozenset(module_name(line) for line in lines)


def _command(value: str, kernel: Kernel) -> str | None:  # noqa: ARG001  (all settlers take the same)
    return None if tools.find(value) is not None else f"machines lack it: {tools.missing_message(value)}"


_SETTLERS = {"command": _command, "config": _config, "module": _module}
