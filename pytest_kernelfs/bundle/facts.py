"""The host, the run and the tools: what a failure may depend on besides the kernel."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from typing import TYPE_CHECKING

from pytest_kernelfs import __version__, tools
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.guest.versions import version_of

if TYPE_CHECKING:
    from pytest_kernelfs.run import Run

# Those in machines whose version matters to what a test sees, and how each is asked for it.
PROGRAMS = (
    ("mkfs.xfs", "-V"),
    ("mke2fs", "-V"),
    ("mkfs.btrfs", "--version"),
    ("mkfs.f2fs", "-V"),
    ("mkfs.erofs", "--version"),
    ("mount", "--version"),
    ("losetup", "--version"),
    ("ip", "-V"),
    ("kmod", "--version"),
)
_ON_HOST = (("qemu-system-x86_64", "--version"), *PROGRAMS)


@cache
def tool_versions() -> str:
    """A line for each tool of this host: lifted machines have copies of them."""
    import execnet
    import pytest

    lines = [
        f"python: {sys.version.splitlines()[0]}",
        f"pytest: {pytest.__version__}",
        f"execnet: {execnet.__version__}",
        f"pytest-kernelfs: {__version__}",
    ]
    return "\n".join([*lines, *(f"{name}: {_version(name, flag)}" for name, flag in _ON_HOST)]) + "\n"


def _version(name: str, flag: str) -> str:
    path = tools.find(name)
    return version_of(str(path), flag) if path is not None else "not on this host"


def host_facts(run: Run) -> str:
    """The host now: its kernel, processors, memory and load; what runs the machines, and how."""
    config = run.config
    facts = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()} ({platform.version()})",
        "processors": f"{os.cpu_count()} ({_line_of('/proc/cpuinfo', 'model name')})",
        "memory": f"{_line_of('/proc/meminfo', 'MemTotal')}, available "
        f"{_line_of('/proc/meminfo', 'MemAvailable')}",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "machines": _provider(run),
        "isolation": config.isolation or "the provider's own",
        "default size": f"memory {config.memory >> 20}M, cpus {config.cpus}",
        "cache": str(config.cache_root),
        "command": " ".join(sys.argv),
    }
    return "\n".join(f"{name}: {value}" for name, value in facts.items()) + "\n"


def _provider(run: Run) -> str:
    try:
        return run.provider.describe()
    except KernelfsError as error:
        return f"unknown: {error}"


def _line_of(path: str, name: str) -> str:
    """The value of the first line of that name in a file of /proc; "?" if there is none."""
    try:
        with open(path) as file:  # noqa: PTH123  (read line by line)
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return "?"
