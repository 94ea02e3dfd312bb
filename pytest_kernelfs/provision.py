"""Bringing the host's missing programs, through the package manager of its distribution."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_kernelfs import tools
from pytest_kernelfs.errors import ProviderUnavailable

# Runs a command with its output on the terminal; gives its exit status.
Runner = Callable[[Sequence[str]], int]

_APT_LISTS: Final = Path("/var/lib/apt/lists")


@dataclass(frozen=True)
class Need:
    """Something the host should have: its name, the packages that bring it, and whether it is there."""

    name: str
    apt: str
    dnf: str
    purpose: str
    required: bool
    present: Callable[[], bool]


@dataclass(frozen=True)
class PackageManager:
    """One distribution family's way to install packages: the commands, without sudo."""

    name: str
    install: tuple[str, ...]
    update: tuple[str, ...] = ()

    def package(self, need: Need) -> str:
        """The package that brings what is needed."""
        return need.apt if self.name == "apt" else need.dnf

    def lists_are_absent(self) -> bool:
        """True if an update has to come first, as on a fresh container image."""
        return bool(self.update) and not any(_APT_LISTS.glob("*_Packages*"))


APT: Final = PackageManager(
    "apt",
    # Another apt may be at work, as on a machine that has just started: wait for it.
    (
        *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"),
        *("install", "-y", "-q", "--no-install-recommends"),
    ),
    ("apt-get", "update", "-q"),
)
DNF: Final = PackageManager("dnf", ("dnf", "install", "-y", "--setopt=install_weak_deps=False"))


def needs(providers: Iterable[str] = (), *, for_tests: bool = False) -> list[Need]:
    """All that the plugin uses on the host.

    ``providers`` names machine providers of ours whose programs are to be there, too; ``for_tests`` adds what
    only our own tests use.
    """
    wanted = [
        Need(tool.command, tool.apt, tool.dnf, tool.purpose, tool.required, _finder(tool.command))
        for tool in tools.TOOLS
    ]
    wanted.append(
        Need(
            "debian-archive-keyring",
            "debian-archive-keyring",
            "debian-keyring",
            "verifying Debian's kernels",
            for_tests,
            _has_keyring,
        )
    )
    for provider in OF_PROVIDERS if for_tests else dict.fromkeys(providers):
        wanted += OF_PROVIDERS.get(provider, ())
    if for_tests:
        wanted += [
            Need(command, apt, dnf, "this project's own tests", True, _finder(command))
            for command, apt, dnf in _OF_TESTS
        ]
    return wanted


_OF_TESTS: Final = (
    ("gpg", "gnupg", "gnupg2"),
    ("busybox", "busybox-static", "busybox"),
    ("nc", "netcat-openbsd", "netcat"),
    ("sshd", "openssh-server", "openssh-server"),
    ("sudo", "sudo", "sudo"),
    ("iptables", "iptables", "iptables-nft"),
)


def missing(wanted: Iterable[Need]) -> list[Need]:
    """Those that are not there now (looked up anew, whatever was found before)."""
    tools.find.cache_clear()
    return [need for need in wanted if not need.present()]


def package_manager() -> PackageManager | None:
    """The host's package manager, or None if it is none that we know."""
    for program, manager in (("apt-get", APT), ("dnf", DNF)):
        if shutil.which(program):
            return manager
    return None


def packages(manager: PackageManager, lacking: Iterable[Need]) -> list[str]:
    """The packages that bring what is lacking, each once, sorted."""
    return sorted({manager.package(need) for need in lacking})


def install_command(manager: PackageManager, names: Sequence[str]) -> list[str]:
    """The command that installs the packages, with sudo unless we are root."""
    return [*_sudo(), *manager.install, *names]


def install(manager: PackageManager, names: Sequence[str], run: Runner | None = None) -> None:
    """Install the packages; their lists are fetched first if they are absent or too old.

    If they cannot be had together, each is tried on its own, so that one that the distribution lacks
    does not keep the others away. Look with ``missing`` for what came of it.

    Raises: ProviderUnavailable if we are neither root nor may become it.
    """
    run = run or run_visibly
    require_privileges(manager, names, run)
    updated = False
    if manager.lists_are_absent():
        updated = run([*_sudo(), *manager.update]) == 0
    if run(install_command(manager, names)) == 0:
        return
    if manager.update and not updated:
        run([*_sudo(), *manager.update])
        if run(install_command(manager, names)) == 0:
            return
    if len(names) > 1:
        for name in names:
            run(install_command(manager, [name]))


def require_privileges(manager: PackageManager, names: Sequence[str], run: Runner) -> None:
    """Prove that we may install packages.

    Raises: ProviderUnavailable, with the command that someone who may has to run.
    """
    if os.geteuid() == 0:
        return
    # Whoever runs it may have a fresh system, whose lists are as absent as they are here.
    before = f"{shlex.join(manager.update)} && " if manager.lists_are_absent() else ""
    command = before + shlex.join([*manager.install, *names])
    if shutil.which("sudo") is None:
        reason = "you are not root, and sudo is not on this host"
    elif run(["sudo", "true"]) != 0:
        reason = "you are not root, and sudo did not let you become it"
    else:
        return
    raise ProviderUnavailable(f"cannot install packages: {reason}; have someone who is root run: {command}")


def run_visibly(command: Sequence[str]) -> int:
    """Run a command with its output on the terminal; its exit status, 127 if it is not there."""
    try:
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode
    except FileNotFoundError:
        return 127


def _sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo"]


def _finder(command: str) -> Callable[[], bool]:
    return lambda: tools.find(command) is not None


def _any_file(*patterns: str) -> Callable[[], bool]:
    return lambda: any(any(Path("/").glob(pattern)) for pattern in patterns)


def _of(purpose: str, *rows: tuple[str, str, str, Callable[[], bool] | None]) -> tuple[Need, ...]:
    return tuple(
        Need(name, apt, dnf, purpose, True, present or _finder(name)) for name, apt, dnf, present in rows
    )


_LIBVIRT: Final = _of(
    "the provider libvirt",
    ("libvirtd", "libvirt-daemon", "libvirt-daemon", None),
    ("virsh", "libvirt-clients", "libvirt-client", None),
    # libvirt-python is compiled where it is installed.
    ("libvirt.h", "libvirt-dev", "libvirt-devel", _any_file("usr/include/libvirt/libvirt.h")),
    ("pkg-config", "pkg-config", "pkgconf-pkg-config", None),
    ("gcc", "gcc", "gcc", None),
    ("Python.h", "python3-dev", "python3-devel", _any_file("usr/include/python3*/Python.h")),
)
# What the machine providers need on this host beyond what all need; those not named need nothing more.
OF_PROVIDERS: Final[Mapping[str, Sequence[Need]]] = {
    "libvirt": _LIBVIRT,
    "vagrant": _of(
        "the provider vagrant",
        ("vagrant", "vagrant", "vagrant", None),
        (
            "vagrant-libvirt",
            "vagrant-libvirt",
            "vagrant-libvirt",
            _any_file(
                "usr/share/rubygems-integration/*/gems/vagrant-libvirt-*",
                "usr/share/vagrant/gems/gems/vagrant-libvirt-*",
            ),
        ),
        ("libvirtd", "libvirt-daemon", "libvirt-daemon", None),
        ("qemu-img", "qemu-utils", "qemu-img", None),
        # The network of machines, and the box that is built here.
        ("dnsmasq", "dnsmasq-base", "dnsmasq", None),
        ("mmdebstrap", "mmdebstrap", "mmdebstrap", None),
    ),
}


def _has_keyring() -> bool:
    from pytest_kernelfs.kernels.signature import DEFAULT_KEYRINGS

    return any(keyring.is_file() for keyring in DEFAULT_KEYRINGS)
