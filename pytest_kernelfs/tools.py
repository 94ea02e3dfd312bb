"""The programs of the host that we run or lift into the guest, and the packages that bring them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_kernelfs.errors import ProviderUnavailable

# An ordinary user of Debian has no sbin in PATH, yet may run nearly all of it.
_ALSO_SEARCHED = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec")


@dataclass(frozen=True)
class Tool:
    """One program: its name, the packages that bring it, what it is for.

    ``required`` tools are needed to boot anything at all; without any of the
    others only ``purpose`` is missing.
    """

    command: str
    apt: str
    dnf: str
    purpose: str
    required: bool = False


TOOLS = (
    Tool("qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86-core", "running kernels", required=True),
    Tool("depmod", "kmod", "kmod", "loading kernel modules", required=True),
    Tool("modprobe", "kmod", "kmod", "loading kernel modules", required=True),
    Tool("sh", "dash", "bash", "running commands in the guest", required=True),
    Tool("setpriv", "util-linux", "util-linux", "ending machines with the test run", required=True),
    Tool("gpgv", "gpgv", "gnupg2", "verifying Debian's signatures"),
    Tool("mkfs.xfs", "xfsprogs", "xfsprogs", "the xfs fixtures"),
    Tool("mkfs.ext4", "e2fsprogs", "e2fsprogs", "ext4 file systems"),
    Tool("mkfs.btrfs", "btrfs-progs", "btrfs-progs", "btrfs file systems"),
    Tool("mkfs.f2fs", "f2fs-tools", "f2fs-tools", "f2fs file systems"),
    Tool("losetup", "mount", "util-linux", "the loop device fixtures"),
    Tool("mount", "mount", "util-linux-core", "mounting from commands"),
    Tool("fsfreeze", "util-linux", "util-linux", "freezing file systems"),
    Tool("sysctl", "procps", "procps-ng", "kernel settings in the guest"),
    Tool("pkill", "procps", "procps-ng", "ending processes in the guest"),
    Tool("dmsetup", "dmsetup", "device-mapper", "device-mapper stacks"),
    Tool("ip", "iproute2", "iproute", "network namespaces"),
    Tool("getent", "libc-bin", "glibc-common", "users, groups and addresses in the guest"),
    Tool("ping", "iputils-ping", "iputils", "asking addresses from the guest"),
    Tool("ssh", "openssh-client", "openssh-clients", "machines that are reached over ssh"),
)

_BY_COMMAND = {tool.command: tool for tool in TOOLS}


@cache
def find(command: str) -> Path | None:
    """The program's path, searched in PATH and in the sbin folders; None if the host lacks it."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ALSO_SEARCHED])
    found = shutil.which(command, path=search)
    return Path(found) if found else None


def need(command: str) -> Path:
    """The program's path.

    Raises: ProviderUnavailable, naming the program, its purpose and its package.
    """
    path = find(command)
    if path is None:
        raise ProviderUnavailable(missing_message(command))
    return path


def missing_message(command: str) -> str:
    """One line about a program that is not there: what for, and how to get it."""
    tool = _BY_COMMAND.get(command)
    if tool is None:
        return f"the program {command!r} is not on this host; install it and try again"
    return (
        f"the program {command!r} (for {tool.purpose}) is not on this host; run 'kernelfs setup', or "
        f"install the package {tool.apt!r} (Debian, Ubuntu) or {tool.dnf!r} (Fedora)"
    )


def missing_in_machine(command: str) -> str:
    """One line about a program that a machine lacks, whosever programs it runs."""
    tool = _BY_COMMAND.get(command)
    if tool is None or find(command) is None:
        return f"the machine lacks a program: {missing_message(command)}"
    return (
        f"the machine has no {command!r} (for {tool.purpose}), though this host has; install the package "
        f"{tool.apt!r} (Debian, Ubuntu) or {tool.dnf!r} (Fedora) in the machine"
    )
