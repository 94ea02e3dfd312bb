"""Makes and mounts file systems of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from pytest_kernelfs.arguments import check_texts
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import filesystems
from pytest_kernelfs.resources import mkfs as making
from pytest_kernelfs.resources.block import BlockDevice, check_device, full_speed
from pytest_kernelfs.resources.filesystem import Filesystem, Tmpfs, Xfs, filesystem_on
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, parse_size

DEFAULT_SIZE = "512M"


class FilesystemFactory:
    """Makes file systems: the ``filesystem_factory`` fixture."""

    def __init__(
        self, resources: Resources, loops: LoopDeviceFactory, name: str = "filesystem_factory"
    ) -> None:
        """``name`` is what error messages call it."""
        self._resources = resources
        self._loops = loops
        self._name = name
        self._versions: dict[str, tuple[int, int]] = {}

    @overload
    def __call__(
        self,
        kind: Literal["xfs"],
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        quota: Sequence[str] = (),
    ) -> Xfs: ...

    @overload
    def __call__(
        self,
        kind: Literal["tmpfs"],
        *,
        size: Size | None = None,
        options: Sequence[str] = (),
        nr_inodes: int | None = None,
        huge: str | None = None,
    ) -> Tmpfs: ...

    @overload
    def __call__(
        self,
        kind: Literal["ext4", "btrfs", "f2fs"],
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        quota: Sequence[str] = (),
    ) -> Filesystem: ...

    @overload
    def __call__(
        self,
        kind: str,
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        quota: Sequence[str] = (),
        nr_inodes: int | None = None,
        huge: str | None = None,
    ) -> Filesystem | Tmpfs: ...

    def __call__(
        self,
        kind: str,
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        quota: Sequence[str] = (),
        nr_inodes: int | None = None,
        huge: str | None = None,
    ) -> Filesystem | Tmpfs:
        """Make and mount a file system: "xfs", "ext4", "btrfs", "f2fs" or "tmpfs".

        ``on`` is a block device; by default a fresh loop device of ``size`` (512M) bytes on a sparse file in
        memory. ``mkfs`` adds flags to those chosen for the kernel, ``options`` are mount options, ``quota``
        switches on quotas (of xfs and ext4) for some of "user", "group", "project". A tmpfs takes ``size``,
        ``nr_inodes``, ``huge`` (never, always, within_size, advise) and ``options``.

        Raises: UsageError; GuestCommandError with the tool's words or the kernel's reason.
        """
        options = check_texts(f"{self._name}: options", options)
        mkfs = check_texts(f"{self._name}: mkfs", mkfs)
        if kind == "tmpfs":
            if on is not None or mkfs or quota:
                raise UsageError(f"{self._name}: a tmpfs lies in memory; it takes no on, mkfs or quota")
            return self._tmpfs(size, nr_inodes, huge, options)
        self._demand_kind(kind)
        if nr_inodes is not None or huge is not None:
            raise UsageError(f"{self._name}: nr_inodes and huge are for tmpfs, not for {kind}")
        return self._make(kind, on, size, mkfs, options, quota)

    def mount(self, *, on: BlockDevice, kind: str, options: Sequence[str] = ()) -> Filesystem:
        """Mount a file system that is on the device already, after a power cut for example.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        self._demand_kind(kind)
        check_device(f"{self._name}.mount, on", on)
        self._demand_kernel(kind)
        with full_speed(on):
            return self._mounted(kind, on, [], options)

    def _tmpfs(
        self, size: Size | None, nr_inodes: int | None, huge: str | None, options: Sequence[str]
    ) -> Tmpfs:
        wanted = {
            "size": None if size is None else parse_size(size, "tmpfs size"),
            "nr_inodes": nr_inodes,
            "huge": huge,
        }
        named = [f"{name}={value}" for name, value in wanted.items() if value is not None]
        return Tmpfs(self._resources, [*named, *options])

    def _make(
        self,
        kind: str,
        on: BlockDevice | None,
        size: Size | None,
        mkfs: Sequence[str],
        options: Sequence[str],
        quota: Sequence[str],
    ) -> Filesystem:
        if on is not None:
            if size is not None:
                raise UsageError(
                    f"{self._name}: the size comes with the device given as 'on'; give one of the two"
                )
            check_device(f"{self._name}, on", on)
        quota_options = making.quota_options(self._name, kind, quota)
        vm = self._resources.vm
        if quota:
            making.demand_quota(vm, kind)
        self._demand_kernel(kind)
        device = on or self._loops(size=DEFAULT_SIZE if size is None else size)
        flags = making.flags_for(vm, kind, self._version(kind), quota, mkfs)
        with full_speed(device):
            making.make(vm, kind, flags, device.path)
            try:
                return self._mounted(kind, device, flags, [*options, *quota_options])
            except GuestCommandError as error:
                raise GuestCommandError(f"{error}{making.quota_hint(vm, kind, quota)}") from None

    def _mounted(
        self, kind: str, device: BlockDevice, flags: Sequence[str], options: Sequence[str]
    ) -> Filesystem:
        made = filesystem_on(self._resources, kind, device, flags)
        made.mount(options)
        return made

    def _version(self, kind: str) -> tuple[int, int]:
        if kind not in self._versions:
            self._versions[kind] = making.version(self._resources.vm, kind)
        return self._versions[kind]

    def _demand_kind(self, kind: str) -> None:
        if kind not in making.KINDS:
            known = ", ".join(making.KINDS)
            raise UsageError(
                f"{self._name}: {kind!r} is no kind of file system on devices; there are {known}"
            )

    def _demand_kernel(self, kind: str) -> None:
        """Have the kernel know this kind, loading its module if need be."""
        vm = self._resources.vm
        if vm.guest(filesystems.known, kind):
            return
        try:
            vm.modprobe(kind)
        except GuestCommandError as error:
            raise GuestCommandError(f"no {kind} file system can be mounted: {error}") from None


class XfsFactory:
    """Makes XFS file systems: the ``xfs_factory`` fixture."""

    def __init__(self, resources: Resources, loops: LoopDeviceFactory) -> None:
        self._make = FilesystemFactory(resources, loops, "xfs_factory")

    def __call__(
        self,
        *,
        on: BlockDevice | None = None,
        size: Size | None = None,
        mkfs: Sequence[str] = (),
        options: Sequence[str] = (),
        project_quota: bool = False,
        quota: Sequence[str] = (),
    ) -> Xfs:
        """Make and mount an XFS.

        ``on`` is a block device; by default a fresh loop device of ``size`` (512M) bytes on a sparse
        file in memory. ``mkfs`` adds flags to those chosen for the kernel, ``options`` are mount
        options, ``quota`` names some of "user", "group", "project"; ``project_quota`` is the last of these.

        Raises: UsageError; GuestCommandError with mkfs.xfs's words or the kernel's reason.
        """
        types = quota if not project_quota or "project" in quota else [*quota, "project"]
        return self._make("xfs", on=on, size=size, mkfs=mkfs, options=options, quota=types)
