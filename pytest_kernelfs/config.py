"""The plugin's configuration: one frozen dataclass made from command line, ini file and environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kernelfs.cache import default_root
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.providers import DEFAULT, HYPERVISORS, ProviderOptions, refuse_unused
from pytest_kernelfs.sizes import format_size, parse_size

if TYPE_CHECKING:
    import pytest

ACCELERATORS = ("auto", "kvm", "tcg")
ISOLATIONS = ("test", "class", "module", "session")
FLAVOURS = ("cloud", "amd64", "rt")
KEEPS = ("never", "failed", "always")
# Below this no distribution kernel reaches its init with our root in memory.
LEAST_MEMORY = 384 << 20
MOST_CPUS = 255
MOST_VMS = 1000


@dataclass(frozen=True)
class Option:
    """One setting: ``name`` on the command line, ``ini`` in the ini file, in capitals in the environment."""

    name: str
    ini: str
    default: str
    help: str
    metavar: str = "VALUE"

    @property
    def dest(self) -> str:
        return self.ini

    @property
    def variable(self) -> str:
        """The environment variable that sets it: kernelfs_cache -> KERNELFS_CACHE."""
        return self.ini.upper()


OPTIONS = (
    Option(
        "--kernelfs-provider", "kernelfs_provider", DEFAULT,
        "what runs the machines: qemu, libvirt, vagrant, ssh, local, or a provider of another plugin", "NAME",
    ),
    Option(
        "--kernelfs-image", "kernelfs_image", "",
        "disk image whose system is booted with the kernel under test, instead of our own root", "FILE",
    ),
    Option(
        "--kernelfs-image-partition", "kernelfs_image_partition", "",
        "its partition with the root: a number, LABEL=…, UUID=…, PARTLABEL=… or PARTUUID=… (default: the one "
        "that is marked so, else the largest)", "WHICH",
    ),
    Option(
        "--kernelfs-libvirt-uri", "kernelfs_libvirt_uri", "qemu:///session",
        "provider libvirt: the hypervisor to connect to", "URI",
    ),
    Option(
        "--kernelfs-vagrant-box", "kernelfs_vagrant_box", "", "provider vagrant: the box to start", "NAME"
    ),
    Option(
        "--kernelfs-vagrant-folder", "kernelfs_vagrant_folder", "",
        "provider vagrant: a folder with a Vagrantfile of your own", "DIR",
    ),
    Option(
        "--kernelfs-vagrant-hypervisor", "kernelfs_vagrant_hypervisor", HYPERVISORS[0],
        "provider vagrant: what Vagrant runs machines with, libvirt or virtualbox", "NAME",
    ),
    Option(
        "--kernelfs-ssh", "kernelfs_ssh", "",
        "provider ssh: the machine to run tests on, as for ssh: host, user@host or ssh://user@host:port",
        "DESTINATION",
    ),
    Option(
        "--kernelfs-ssh-config", "kernelfs_ssh_config", "",
        "provider ssh: ssh's configuration (default: your own ~/.ssh/config and the system's)", "FILE",
    ),
    Option("--kernelfs-accel", "kernelfs_accel", "auto", "auto (KVM if it is proved to work), kvm or tcg"),
    Option(
        "--kernelfs-isolation", "kernelfs_isolation", "",
        "which tests share a machine: those of a test, class, module or session (default: test where a fresh "
        "machine is cheap, else session)", "SCOPE",
    ),
    Option("--kernelfs-memory", "kernelfs_memory", "1G", "memory of a machine, such as 512M or 2G", "SIZE"),
    Option("--kernelfs-cpus", "kernelfs_cpus", "1", "processors of a machine", "N"),
    Option(
        "--kernelfs-max-vms", "kernelfs_max_vms", "auto",
        "most machines at once on this host, over all workers; auto: as many as memory and cores allow", "N",
    ),
    Option("--kernelfs-boot-timeout", "kernelfs_boot_timeout", "120", "how long a boot may take", "SECONDS"),
    Option("--kernelfs-cache", "kernelfs_cache", "", "cache folder (default: in the XDG cache)", "DIR"),
    Option(
        "--kernelfs-cache-size", "kernelfs_cache_size", "10G",
        "what templates and ramdisks may fill of the cache; the longest unused go first", "SIZE",
    ),
    Option(
        "--kernelfs-debian-mirror", "kernelfs_debian_mirror", "",
        "Debian mirror to fetch kernels from (default: the one apt is configured with)", "URL",
    ),
    Option(
        "--kernelfs-debian-keyring", "kernelfs_debian_keyring", "",
        "keyring that the mirror's indexes must be signed with (default: Debian's)", "FILE",
    ),
    Option(
        "--kernelfs-flavour", "kernelfs_flavour", "cloud",
        "flavour of Debian kernels that a version or suite means: cloud, amd64 or rt", "NAME",
    ),
    Option(
        "--kernelfs-keep", "kernelfs_keep", "failed",
        "of which tests artifacts are kept (logs, stacks, mounts …): never, failed or always", "WHEN",
    ),
    Option(
        "--kernelfs-artifacts", "kernelfs_artifacts", "kernelfs-artifacts",
        "folder for them; in the ini file, and by default, below the root folder", "DIR",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """``memory`` is in bytes, ``boot_timeout`` in seconds; no ``specs`` mean the default kernel.

    ``isolation`` is None where the provider's own is to count. ``share`` are texts DIR[:GUEST].

    ``explicit`` tells that the specs were typed on the command line.
    """

    specs: tuple[str, ...]
    explicit: bool
    provider: str
    providers: ProviderOptions
    accel: str
    isolation: str | None
    image: Path | None
    image_partition: str
    share: tuple[str, ...]
    memory: int
    cpus: int
    max_vms: int | None
    boot_timeout: float
    cache_root: Path
    cache_size: int
    debian_mirror: str | None
    debian_keyring: Path | None
    flavour: str
    offline: bool
    keep: str
    artifacts: Path
    require: bool


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and ini setting to pytest."""
    group = parser.getgroup("kernelfs", "tests on real kernels (pytest-kernelfs)")
    help_text = (
        "kernel to run the tests on, repeatable or comma-separated: 6.1, 6.1.176, "
        "6.12.117+deb13-cloud-amd64, debian:bullseye, a kernel image, a built tree, a .deb"
    )
    group.addoption(
        "--kernel", action="append", default=[], metavar="SPEC", dest="kernelfs_kernels", help=help_text
    )
    parser.addini("kernelfs_kernels", help_text, type="args", default=[])
    offline = "use only what is in the cache, never the network"
    group.addoption(
        "--kernelfs-offline", action="store_true", default=None, dest="kernelfs_offline", help=offline
    )
    parser.addini("kernelfs_offline", offline, type="bool", default=False)
    local = "provider local: tests may work on this host's own kernel, as root"
    group.addoption(
        "--kernelfs-allow-local", action="store_true", default=False, dest="kernelfs_allow_local", help=local
    )
    share = "folder to bring into every machine, repeatable; GUEST is its absolute path there"
    group.addoption(
        "--kernelfs-share",
        action="append",
        default=[],
        metavar="DIR[:GUEST]",
        dest="kernelfs_share",
        help=share,
    )
    parser.addini("kernelfs_share", share, type="linelist", default=[])
    require = "a need (marker kernel_needs) that a kernel does not meet is an error instead of a skip"
    group.addoption(
        "--kernelfs-require", action="store_true", default=None, dest="kernelfs_require", help=require
    )
    parser.addini("kernelfs_require", require, type="bool", default=False)
    for option in OPTIONS:
        shown = f"{option.help}{f' (default: {option.default})' if option.default else ''}".replace("%", "%%")
        group.addoption(option.name, metavar=option.metavar, default=None, dest=option.dest, help=shown)
        parser.addini(option.ini, option.help, default=option.default)


def read(config: pytest.Config) -> Config:
    """The configuration of this run.

    Raises: UsageError, naming the option and what it takes, for a value that is none.
    """
    typed = [part for value in config.getoption("kernelfs_kernels") for part in value.split(",")]
    offline, require = config.getoption("kernelfs_offline"), config.getoption("kernelfs_require")
    return _made_of(
        {option.ini: _of_run(option, config) for option in OPTIONS},
        config.rootpath,
        specs=tuple(spec.strip() for spec in typed or _ini_specs(config)),
        explicit=bool(typed),
        share=_shares(config),
        allow_local=config.getoption("kernelfs_allow_local"),
        offline=bool(config.getini("kernelfs_offline") if offline is None else offline),
        require=bool(config.getini("kernelfs_require") if require is None else require),
    )


def typed(
    texts: Mapping[str, str | None],
    *,
    specs: Sequence[str],
    share: Sequence[str],
    allow_local: bool,
    offline: bool,
) -> Config:
    """The configuration of a command: ``texts`` by ini name, else the environment, else the defaults.

    Raises: UsageError, naming the option and what it takes, for a value that is none.
    """
    return _made_of(
        {option.ini: _of_command(option, texts.get(option.ini)) for option in OPTIONS},
        Path(),
        specs=tuple(part.strip() for spec in specs for part in spec.split(",")),
        explicit=True,
        share=tuple(share),
        allow_local=allow_local,
        offline=offline,
        require=False,
    )


def _made_of(
    values: Mapping[str, _Value],
    root: Path,
    *,
    specs: tuple[str, ...],
    explicit: bool,
    share: tuple[str, ...],
    allow_local: bool,
    offline: bool,
    require: bool,
) -> Config:
    """``root`` is where paths of the ini file are relative to."""
    _refuse_unused(values, allow_local=allow_local)
    return Config(
        specs=specs,
        explicit=explicit,
        provider=values["kernelfs_provider"].text,
        providers=_provider_options(values, root, allow_local=allow_local),
        accel=values["kernelfs_accel"].one_of(ACCELERATORS),
        isolation=values["kernelfs_isolation"].one_of(ISOLATIONS)
        if values["kernelfs_isolation"].text
        else None,
        image=values["kernelfs_image"].path(root),
        image_partition=values["kernelfs_image_partition"].text,
        share=share,
        memory=values["kernelfs_memory"].memory(),
        cpus=values["kernelfs_cpus"].count(MOST_CPUS),
        max_vms=None
        if values["kernelfs_max_vms"].text == "auto"
        else values["kernelfs_max_vms"].count(MOST_VMS),
        boot_timeout=values["kernelfs_boot_timeout"].seconds(),
        cache_root=values["kernelfs_cache"].path(root) or default_root(),
        cache_size=parse_size(values["kernelfs_cache_size"].text, "--kernelfs-cache-size"),
        debian_mirror=values["kernelfs_debian_mirror"].text or None,
        debian_keyring=values["kernelfs_debian_keyring"].path(root),
        flavour=values["kernelfs_flavour"].one_of(FLAVOURS),
        offline=offline,
        keep=values["kernelfs_keep"].one_of(KEEPS),
        artifacts=values["kernelfs_artifacts"].folder(root),
        require=require,
    )


def _refuse_unused(values: Mapping[str, _Value], *, allow_local: bool) -> None:
    """Raises: UsageError for what was typed and is of no use in this run.

    Elsewhere, in the ini file say, it may stand for runs with another provider.
    """
    typed = [value.named for value in values.values() if value.typed and value.text]
    local = ["--kernelfs-allow-local"] if allow_local else []
    refuse_unused(values["kernelfs_provider"].text, [*typed, *local])
    partition = values["kernelfs_image_partition"]
    if partition.typed and partition.text and not values["kernelfs_image"].text:
        raise UsageError(f"{partition.named}: it is of a disk image; name that with --kernelfs-image")


def _ini_specs(config: pytest.Config) -> list[str]:
    return [part for value in config.getini("kernelfs_kernels") for part in value.split(",") if part]


def _provider_options(values: Mapping[str, _Value], root: Path, *, allow_local: bool) -> ProviderOptions:
    return ProviderOptions(
        ssh=values["kernelfs_ssh"].text,
        ssh_config=values["kernelfs_ssh_config"].path(root),
        libvirt_uri=values["kernelfs_libvirt_uri"].text,
        allow_local=allow_local,
        vagrant_box=values["kernelfs_vagrant_box"].text,
        vagrant_folder=values["kernelfs_vagrant_folder"].path(root),
        vagrant_hypervisor=values["kernelfs_vagrant_hypervisor"].one_of(HYPERVISORS),
    )


def _shares(config: pytest.Config) -> tuple[str, ...]:
    """Those of the command line, else those of the ini file, whose folders are below the root folder."""
    typed = config.getoption("kernelfs_share")
    return tuple(
        typed or (str(config.rootpath / Path(text).expanduser()) for text in config.getini("kernelfs_share"))
    )


def _of_run(option: Option, config: pytest.Config) -> _Value:
    """The command line goes before the environment, and that before the ini file."""
    typed: Any = config.getoption(option.dest)
    if typed is None and not os.environ.get(option.variable):
        named = f"the ini setting {option.ini}"
        return _Value(named, str(config.getini(option.ini)), in_ini=True)
    return _of_command(option, None if typed is None else str(typed))


def _of_command(option: Option, typed: str | None) -> _Value:
    if typed is not None:
        return _Value(option.name, typed, typed=True)
    variable = os.environ.get(option.variable)
    if variable:
        return _Value(f"the environment variable {option.variable}", variable)
    return _Value(option.name, option.default)


class _Value:
    """The text of one option, and its conversions, whose errors say where the text came from."""

    def __init__(self, named: str, text: str, *, in_ini: bool = False, typed: bool = False) -> None:
        self.named, self.text, self.typed, self._in_ini = named, text, typed, in_ini

    def path(self, root: Path) -> Path | None:
        """The same as ``folder``; None if nothing is given."""
        return self.folder(root) if self.text else None

    def folder(self, root: Path) -> Path:
        """A path; relative to where pytest was started, or to ``root`` if it stands in the ini file."""
        return (root if self._in_ini else Path()).absolute() / Path(self.text).expanduser()

    def one_of(self, known: tuple[str, ...]) -> str:
        if self.text not in known:
            raise UsageError(f"{self.named}: {self.text!r} is none of {', '.join(known)}")
        return self.text

    def memory(self) -> int:
        size = parse_size(self.text, self.named)
        if size < LEAST_MEMORY:
            raise UsageError(
                f"{self.named}: {self.text} is too little for a machine ({format_size(size)}); "
                f"give at least {LEAST_MEMORY >> 20}M, such as 1G"
            )
        return size

    def count(self, most: int) -> int:
        if not self.text.isdecimal() or not 1 <= int(self.text) <= most:
            raise UsageError(f"{self.named}: {self.text!r} is no number from 1 to {most}")
        return int(self.text)

    def seconds(self) -> float:
        try:
            value = float(self.text)
        except ValueError:
            value = 0.0
        if not 0 < value < 86400:
            raise UsageError(f"{self.named}: {self.text!r} is no time in seconds above 0")
        return value
