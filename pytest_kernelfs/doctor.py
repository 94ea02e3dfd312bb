"""What this host has and lacks for running kernels, and how to mend what it lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal

from pytest_kernelfs import provision, tools
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.sizes import format_size

if TYPE_CHECKING:
    from pytest_kernelfs.kernels.settings import KernelSettings

State = Literal["ok", "warning", "missing"]

OLDEST_PYTHON: Final = (3, 10)
GIB: Final = 1 << 30
LITTLE_DISK: Final = 4 * GIB  # a few kernels, their templates, and the disks of some tests
LITTLE_MEMORY: Final = 1 * GIB  # one machine of the usual size

_KVM_MEND: Final = (
    "enable virtualisation (nested, in a virtual machine) and join the group kvm; or go on without"
)
# Provider -> its Python module, and the package that brings it.
_OPTIONAL_PROVIDERS: Final = {
    "libvirt": ("libvirt", "libvirt-python"),
    "vagrant": ("vagrant", "python-vagrant"),
}
_COLOURS: Final = {"ok": "green", "warning": "yellow", "missing": "bold red"}


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it is, what was seen, and what to do about it.

    ``required``: nothing can be run unless this is ok. A ``warning`` never stops anything.
    """

    name: str
    state: State
    detail: str
    mend: str = ""
    required: bool = False


def examine(settings: KernelSettings) -> list[Check]:
    """Look at everything; changes nothing, asks no server. ``settings``: the cache and the mirror in use."""
    tools.find.cache_clear()
    cache_root = settings.cache.root
    return [
        python_check(sys.version_info[:3]),
        *(tool_check(tool, tools.find(tool.command)) for tool in tools.TOOLS),
        *([qemu_check()] if tools.find("qemu-system-x86_64") else []),
        accelerator_check(cache_root),
        mirror_check(settings),
        keyring_check(settings.debian_keyring),
        *cache_checks(cache_root),
        memory_check(Path("/proc/meminfo")),
        shared_memory_check(Path("/dev/shm")),  # noqa: S108  (only looked at)
        *(provider_check(name, *what) for name, what in _OPTIONAL_PROVIDERS.items()),
    ]


def healthy(checks: Sequence[Check]) -> bool:
    """True if nothing that is required is missing."""
    return not any(check.required and check.state == "missing" for check in checks)


def as_json(checks: Sequence[Check]) -> str:
    """The findings for programs: ``{"ok": bool, "checks": [{name, state, detail, mend, required}]}``."""
    return json.dumps({"ok": healthy(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def write_table(checks: Sequence[Check], file: IO[str]) -> None:
    """Write the findings as a table, coloured if ``file`` is a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "state", "detail, and how to mend"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        optional = check.state == "missing" and not check.required
        colour = "yellow" if optional else _COLOURS[check.state]
        detail = Text(f"{check.detail}\n=> {check.mend}" if check.mend else check.detail)
        table.add_row(Text(check.name), Text(check.state, style=colour), detail)
    Console(file=file).print(table)


def python_check(version: Sequence[int]) -> Check:
    """``version``: major, minor, micro of the running Python."""
    text = ".".join(map(str, version))
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return Check("python", "ok", text, required=True)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", "missing", f"{text} is too old", f"use Python {oldest} or newer", required=True)


def tool_check(tool: tools.Tool, path: Path | None) -> Check:
    """``path``: where the tool was found, if it was."""
    if path is not None:
        return Check(tool.command, "ok", str(path), required=tool.required)
    return Check(
        tool.command,
        "missing",
        f"not found; needed for {tool.purpose}",
        f"kernelfs setup (package {tool.apt}; Fedora: {tool.dnf})",
        required=tool.required,
    )


def provider_check(name: str, module: str, package: str) -> Check:
    """Whether a machine provider has its programs, and the Python ``module`` of that ``package``."""
    lacking = [need.name for need in provision.missing(provision.OF_PROVIDERS[name])]
    mends = [f"kernelfs setup --provider {name}"] if lacking else []
    if importlib.util.find_spec(module) is None:
        lacking.append(package)
        mends.append(f"pip install 'pytest-kernelfs[{name}]'")
    if lacking:
        return Check(f"provider {name}", "missing", f"lacks {', '.join(lacking)}", "; ".join(mends))
    return Check(f"provider {name}", "ok", "its programs and its Python module are there")


def asked_check(name: str, said: str, trouble: str) -> Check:
    """Of a machine provider that was asked whether it works: what it ``said``, or its ``trouble``."""
    shown = f"provider {name}, asked"
    if trouble:
        return Check(shown, "missing", trouble, required=True)
    return Check(shown, "ok", said, required=True)


def qemu_check() -> Check:
    """Whether QEMU runs and is new enough."""
    from pytest_kernelfs.machines.qemu.binary import find_qemu

    try:
        version = find_qemu().version
    except (KernelfsError, OSError) as error:
        return Check("qemu version", "missing", str(error), "install a newer QEMU", required=True)
    return Check("qemu version", "ok", version, required=True)


def accelerator_check(cache_root: Path) -> Check:
    """Whether machines can be fast; without KVM they run all the same, emulated.

    Nothing is booted here: a run proves KVM with a guest and remembers the answer, which is told.
    """
    from pytest_kernelfs.machines.qemu.accel import remembered_kvm_problem
    from pytest_kernelfs.machines.qemu.binary import find_qemu

    try:
        problem = remembered_kvm_problem(find_qemu(), Cache(cache_root))
    except KernelfsError as error:
        return Check("kvm", "warning", f"cannot be looked at without QEMU: {error}")
    if problem is None:
        return Check(
            "kvm", "ok", "can be opened, which proves nothing; the first run will try it with a guest"
        )
    if not problem:
        return Check("kvm", "ok", "proved by running a guest")
    return Check("kvm", "warning", f"{problem}; kernels run emulated, several times slower", _KVM_MEND)


def mirror_check(settings: KernelSettings) -> Check:
    """Where Debian's kernels would come from; kernels of one's own need no mirror."""
    from pytest_kernelfs.kernels.apt import read_apt
    from pytest_kernelfs.kernels.download import shown
    from pytest_kernelfs.kernels.mirrors import find_mirrors

    with tempfile.TemporaryDirectory(prefix="kernelfs-doctor-") as folder:
        facts = read_apt(Cache(Path(folder)))  # not what was remembered of it
    try:
        archives = find_mirrors(settings, facts).archives_for("stable")
    except KernelfsError as error:
        mend = "--debian-mirror URL, or KERNELFS_DEBIAN_MIRROR"
        return Check("debian mirror", "warning", str(error), mend)
    return Check("debian mirror", "ok", ", ".join(shown(archive.uri) for archive in archives))


def keyring_check(keyring: Path | None) -> Check:
    """What Debian's kernels are verified with; ``keyring`` is the one that was asked for, if any."""
    from pytest_kernelfs.kernels.signature import choose_keyring

    try:
        return Check("debian keyring", "ok", str(choose_keyring(keyring)))
    except KernelfsError as error:
        return Check("debian keyring", "missing", str(error), "kernelfs setup")


def cache_checks(root: Path) -> Iterator[Check]:
    """The cache folder: can it be written, how much is in it, how much room is left."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    elsewhere = "choose another folder with --cache DIR or KERNELFS_CACHE"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Check("cache", "missing", f"{root} cannot be written", elsewhere, required=True)
        return
    yield Check("cache", "ok", f"{root} holds {_size(root)}", required=True)
    free = shutil.disk_usage(existing).free
    if free >= LITTLE_DISK:
        yield Check("cache space", "ok", f"{format_size(free)} free")
    else:
        mend = f"kernelfs kernels prune, kernelfs gc, or {elsewhere}"
        yield Check("cache space", "warning", f"only {format_size(free)} free", mend)


def memory_check(meminfo: Path) -> Check:
    """``meminfo``: the kernel's file of that name."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        return Check("memory", "warning", f"{meminfo} does not tell how much is available")
    available = int(found[1]) * 1024
    if available >= LITTLE_MEMORY:
        return Check("memory", "ok", f"{format_size(available)} available")
    mend = "end other programs, or give machines less with --kernelfs-memory"
    return Check("memory", "warning", f"only {format_size(available)} available", mend)


def shared_memory_check(folder: Path) -> Check:
    """``folder``: the tmpfs for shared memory."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("shared memory", "warning", f"{folder} is not there or cannot be written")
    return Check("shared memory", "ok", f"{format_size(shutil.disk_usage(folder).free)} free in {folder}")


def _size(folder: Path) -> str:
    from pytest_kernelfs.kernels.store import disk_usage

    try:
        return format_size(disk_usage(folder))
    except OSError:  # another process is removing something
        return "what could not be counted just now"
