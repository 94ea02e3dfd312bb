"""Making file systems with features that the kernel under test can mount."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_kernelfs.errors import GuestCommandError, ProviderUnavailable, UsageError
from pytest_kernelfs.kernels.version import KernelVersion
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources import mkfs_btrfs, mkfs_ext4, mkfs_xfs
from pytest_kernelfs.tools import missing_in_machine

QUOTA_TYPES = ("user", "group", "project")


@dataclass(frozen=True)
class Kind:
    """How one kind of file system is made.

    ``command`` makes it without questions, ``version`` finds the version in what -V prints, ``flags``
    are those for the kernel. ``quota`` maps types of quotas to mount options; ``quota_config`` are the
    build settings of a kernel that has them.
    """

    command: tuple[str, ...]
    version: str
    flags: Callable[[tuple[int, int], KernelVersion, Sequence[str]], list[str]] | None = None
    quota: dict[str, str] = field(default_factory=dict)
    quota_flags: Callable[[Sequence[str]], list[str]] | None = None
    quota_config: tuple[str, ...] = ()


KINDS = {
    "xfs": Kind(
        ("mkfs.xfs", "-q", "-f"),
        r"version (\d+)\.(\d+)",
        mkfs_xfs.mkfs_flags,
        {"user": "uquota", "group": "gquota", "project": "pquota"},
        quota_config=("XFS_QUOTA",),
    ),
    "ext4": Kind(
        ("mkfs.ext4", "-q", "-F"),
        r"mke2fs (\d+)\.(\d+)",
        mkfs_ext4.mkfs_flags,
        mkfs_ext4.QUOTA_TYPES,
        mkfs_ext4.quota_flags,
        ("QUOTA", "QFMT_V2"),
    ),
    "btrfs": Kind(("mkfs.btrfs", "-q", "-f"), r"btrfs-progs v(\d+)\.(\d+)", mkfs_btrfs.mkfs_flags),
    "f2fs": Kind(("mkfs.f2fs", "-q", "-f"), r"mkfs\.f2fs (\d+)\.(\d+)"),
}


def parse_version(kind: Kind, text: str) -> tuple[int, int]:
    """Major and minor in what -V printed; an unknown format counts as very old."""
    match = re.search(kind.version, text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def version(vm: VM, name: str) -> tuple[int, int]:
    """The version of the guest's tool for this kind. Raises: ProviderUnavailable if it has none."""
    kind = KINDS[name]
    done = vm.run([kind.command[0], "-V"])
    if done.rc == 127:
        raise ProviderUnavailable(missing_in_machine(kind.command[0]))
    return parse_version(kind, done.stdout + done.stderr)


def flags_for(
    vm: VM, name: str, tool: tuple[int, int], quota: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """The flags for this kernel and tool, those for quotas, and those that the test wants."""
    kind = KINDS[name]
    flags = kind.flags(tool, vm.kernel.version, wanted) if kind.flags else []
    return [*flags, *(kind.quota_flags(quota) if kind.quota_flags else []), *wanted]


def make(vm: VM, name: str, flags: Sequence[str], device: str) -> None:
    """Make one on the device. Raises: GuestCommandError with the tool's own words."""
    command = [*KINDS[name].command, *flags, device]
    done = vm.run(command, timeout=300.0)
    if done.failed:
        # mkfs.xfs goes on with a page of usage.
        reason = (done.stderr.strip() or done.stdout).partition("Usage:")[0].strip()
        raise GuestCommandError(f"{' '.join(command)} failed: {reason}")


def quota_options(what: str, name: str, types: Sequence[str]) -> list[str]:
    """The mount options for quotas of these types. Raises: UsageError if there are none such."""
    known = KINDS[name].quota
    wrong = [kind for kind in types if kind not in known]
    if wrong and not known:
        raise UsageError(f"{what}: quota is for xfs and ext4, not for {name}")
    if wrong or isinstance(types, str):
        raise UsageError(f"{what}: quota={types!r} is no list of {', '.join(QUOTA_TYPES)}")
    return [known[kind] for kind in dict.fromkeys(types)]


def demand_quota(vm: VM, name: str) -> None:
    """Raises: GuestCommandError if the kernel's configuration says that it has no quotas."""
    missing = [option for option in KINDS[name].quota_config if vm.kernel.config_option(option) is None]
    if vm.kernel.config is not None and missing:
        raise GuestCommandError(
            f"kernel {vm.kernel.release} was built without {_settings(missing)}, so it has no quotas on "
            f"{name}; use a kernel that has them"
        )


def quota_hint(vm: VM, name: str, types: Sequence[str]) -> str:
    """What may be behind a mount that failed: a kernel without quotas calls their options invalid."""
    if not types or vm.kernel.config is not None:
        return ""
    settings = _settings(KINDS[name].quota_config)
    return f"; was kernel {vm.kernel.release}, which came without its configuration, built with {settings}?"


def _settings(names: Sequence[str]) -> str:
    return " and ".join(f"CONFIG_{name}" for name in names)
