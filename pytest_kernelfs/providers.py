"""The providers of this package, and which of all that are offered a run uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kernelfs.errors import UsageError

if TYPE_CHECKING:
    from pytest_kernelfs.machines.machine import MakeProvider, Provider, Settings

DEFAULT = "qemu"
NAMES = ("qemu", "libvirt", "vagrant", "ssh", "local")
HYPERVISORS = ("libvirt", "virtualbox")
# What only one of our providers heeds.
_OPTIONS_OF = {
    "--kernelfs-libvirt-uri": "libvirt",
    "--kernelfs-vagrant-box": "vagrant",
    "--kernelfs-vagrant-folder": "vagrant",
    "--kernelfs-vagrant-hypervisor": "vagrant",
    "--kernelfs-ssh": "ssh",
    "--kernelfs-ssh-config": "ssh",
    "--kernelfs-allow-local": "local",
}
_IMAGE = ("--kernelfs-image", "--kernelfs-image-partition")
# Those of other plugins are given the image, too.
_BOOT_NO_IMAGE = ("vagrant", "ssh", "local")


@dataclass(frozen=True)
class ProviderOptions:
    """What our providers are told besides the settings that all have.

    ``ssh`` is a destination for ssh, ``ssh_config`` the file that configures ssh instead of the user's own;
    ``allow_local`` that tests may run on this host's own kernel;
    ``vagrant_folder`` holds a Vagrantfile of the user's own, ``vagrant_hypervisor`` is what Vagrant uses.
    """

    ssh: str = ""
    ssh_config: Path | None = None
    libvirt_uri: str = "qemu:///session"
    allow_local: bool = False
    vagrant_box: str = ""
    vagrant_folder: Path | None = None
    vagrant_hypervisor: str = "libvirt"


def ours(options: ProviderOptions) -> Mapping[str, MakeProvider]:
    """The providers of this package; none is imported before it is made."""

    def qemu(settings: Settings) -> Provider:
        from pytest_kernelfs.machines.qemu.provider import QemuProvider

        return QemuProvider(settings)

    def libvirt(settings: Settings) -> Provider:
        from pytest_kernelfs.machines.libvirt.provider import LibvirtProvider

        return LibvirtProvider(settings, options.libvirt_uri)

    def vagrant(settings: Settings) -> Provider:
        from pytest_kernelfs.machines.vagrant.provider import VagrantProvider
        from pytest_kernelfs.machines.vagrant.settings import VagrantSettings

        chosen = VagrantSettings(options.vagrant_box, options.vagrant_folder, options.vagrant_hypervisor)
        return VagrantProvider(settings, chosen)

    def ssh(settings: Settings) -> Provider:
        from pytest_kernelfs.machines.ssh.provider import SshProvider

        return SshProvider(settings, options.ssh, options.ssh_config)

    def local(settings: Settings) -> Provider:
        from pytest_kernelfs.machines.local.provider import LocalProvider

        return LocalProvider(settings, allowed=options.allow_local)

    return dict(zip(NAMES, (qemu, libvirt, vagrant, ssh, local), strict=True))


def refuse_unused(provider: str, typed: Iterable[str]) -> None:
    """``typed`` are options of the command line. Raises: UsageError for one that this provider heeds not."""
    for option in typed:
        owner = _OPTIONS_OF.get(option, provider)
        if owner != provider:
            raise UsageError(
                f"{option}: it is for the provider {owner}, and the provider of this run is {provider}; add "
                f"--kernelfs-provider {owner}, or leave it out"
            )
        if option in _IMAGE and provider in _BOOT_NO_IMAGE:
            raise UsageError(
                f"{option}: the provider {provider} boots no disk image; leave it out, or choose "
                "--kernelfs-provider qemu or libvirt"
            )


def choose(name: str, offered: Iterable[Mapping[str, MakeProvider]]) -> MakeProvider:
    """The provider of that name; one of another plugin raises no errors but ours.

    Raises: UsageError if none has it, or two have.
    """
    found: dict[str, list[MakeProvider]] = {}
    for group in offered:
        if not isinstance(group, Mapping):
            raise UsageError(
                f"a plugin's pytest_kernelfs_providers gave {group!r}; it has to give a dict: names of "
                "providers, and what makes them"
            )
        for known, make in group.items():
            found.setdefault(known, []).append(make)
    if name not in found:
        raise UsageError(f"--kernelfs-provider: {name!r} is none of {', '.join(sorted(found))}")
    if len(found[name]) > 1:
        raise UsageError(f"--kernelfs-provider: two plugins offer a provider {name!r}; disable one of them")
    if name in NAMES:
        return found[name][0]
    from pytest_kernelfs.machines.foreign import watched

    return watched(name, found[name][0])
