"""File systems on block devices, and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

from pytest_kernelfs.arguments import check_texts
from pytest_kernelfs.errors import GuestCommandError, UsageError, warn
from pytest_kernelfs.guest import filesystems, mounts
from pytest_kernelfs.machines.machine import Machine
from pytest_kernelfs.resources import fsck
from pytest_kernelfs.resources.block import BlockDevice, full_speed
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.quota import Quotas
from pytest_kernelfs.resources.stack import Resources

_TIMEOUT_S = 300.0


class Filesystem(Mount):
    """A file system on a block device.

    ``path`` is where it is mounted, ``device`` the device's path and ``on`` the device, ``mkfs`` the flags it
    was made with, ``options`` those of its latest mount. It is checked after the test unless ``checked``
    is set to False.
    """

    def __init__(self, resources: Resources, kind: str, on: BlockDevice, mkfs: Sequence[str] = ()) -> None:
        path = resources.mount_point(resources.name(kind))
        super().__init__(resources, path, path, on.disk)
        self.kind = kind
        self.on = on
        self.mkfs = list(mkfs)
        self.options: list[str] = []
        self.checked = True
        self._taken_down_in: Machine | None = None
        self._frozen = False

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path} on {self.device}>"

    @property
    def device(self) -> str:
        """The block device in the guest."""
        return self.on.path

    @property
    def quota(self) -> Quotas:
        """The quotas of a file system that was made with ``quota=[…]``."""
        return Quotas(self)

    def mount(self, options: Sequence[str] | None = None) -> None:
        """Mount it, by default with the options it had before.

        Raises: GuestCommandError with the kernel's reason.
        """
        wanted = self.options if options is None else check_texts(f"{self.kind}.mount: options", options)
        vm = self.resources.vm
        vm.guest(mounts.mount, self.device, self.path, self.kind, ",".join(wanted), timeout=_TIMEOUT_S)
        self.options = list(wanted)
        self._mounted()

    def freeze(self) -> None:
        """Let all that would write to it wait, and write its dirty data back: FIFREEZE.

        It is thawed with the test at the latest. Raises: GuestCommandError if it cannot be frozen.
        """
        self.resources.demand_open(f"freezing of {self.path}")
        self.resources.vm.guest(filesystems.freeze, self.path, timeout=_TIMEOUT_S)
        self._frozen = True
        self.resources.on_teardown(f"frozen {self.kind} {self.path}", self._thaw_if_frozen, first=True)

    def thaw(self) -> bool:
        """End that: FITHAW. Gives False if it was not frozen (any more)."""
        thawed: bool = self.resources.vm.guest(filesystems.thaw, self.path, timeout=_TIMEOUT_S)
        self._frozen = False
        return thawed

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keep it frozen meanwhile."""
        vm = self.resources.vm
        machine = vm.machine
        self.freeze()
        try:
            yield
        finally:
            if vm.is_still(machine):
                self._thaw_if_frozen()

    def shutdown(self, *, write: str = "nothing") -> None:
        """Let all that uses it fail from now on, as after an error of the disk; it can still be unmounted.

        ``write`` is what still reaches the disk: "all", the "log" alone, or "nothing" of what is in memory.
        For xfs, ext4 and f2fs. The kernel logs it: see the marker ``dmesg_allow``.

        Raises: UsageError; GuestCommandError if the kernel cannot.
        """
        if write not in filesystems.SHUTDOWNS:
            names = ", ".join(filesystems.SHUTDOWNS)
            raise UsageError(f"{self.kind}.shutdown: write={write!r} is none of {names}")
        self.resources.vm.guest(filesystems.shutdown, self.path, write, timeout=_TIMEOUT_S)

    def assert_sound(self) -> None:
        """Check it now; it must not be mounted. A log that is not empty is replayed before.

        Raises: AssertionError with what its checker says; UsageError if it is mounted; GuestCommandError if
        nothing was found out: it is mounted elsewhere, the device fails, or its checker cannot judge it.
        """
        __tracebackhide__ = True
        if self in self.resources.mounts:
            raise UsageError(f"{self!r} is mounted: call umount() before assert_sound()")
        with full_speed(self.on):
            verdict = fsck.check(self)
        if verdict.skipped:
            raise GuestCommandError(
                f"{self!r} was not checked: {verdict.skipped}; the device must work, and be used nowhere else"
            )
        if verdict.unable:
            raise GuestCommandError(f"{self!r} may be sound or not: {verdict.unable}")
        if verdict.damage:
            raise AssertionError(verdict.damage)

    def _mounted(self) -> None:
        self.resources.latest_on[self.device] = self
        machine = self.resources.vm.machine
        self.forget()
        if self._taken_down_in is machine:
            self.resources.mounts.append(self)
        else:
            # For the first time, or after a power cut: another machine, with nothing to take down yet.
            super()._mounted()
            self._taken_down_in = machine

    def _thaw_if_frozen(self) -> None:
        if self._frozen:
            self._frozen = False
            self.resources.vm.guest(
                filesystems.thaw_wherever, self.path, self.device, self.kind, timeout=_TIMEOUT_S
            )

    def _take_down(self) -> None:
        with full_speed(self.on):
            self.resources.vm.guest(filesystems.umount, self.path, timeout=_TIMEOUT_S)
            self.forget()
            self._judge()

    def judge_with_test(self) -> None:
        """Have it checked when the test is over, if the test unmounts it: for one that a checkpoint kept."""
        self.resources.latest_on[self.device] = self
        self.resources.on_teardown(f"check of the {self.kind} on {self.device}", self._judge)

    def _judge(self) -> None:
        """Check it, once a test; one that is still mounted is passed over."""
        if not self._is_to_be_checked():
            return
        with full_speed(self.on):
            verdict = fsck.check(self)
        if verdict.skipped:
            self._leave_to_another()
            return
        del self.resources.latest_on[self.device]
        if verdict.unable:
            warn(f"the {self.kind} on {self.device} may be sound or not: {verdict.unable}")
        if verdict.damage:
            self.resources.findings.append(verdict.damage)

    def _leave_to_another(self) -> None:
        """Have it checked by who has it mounted as well, once that is unmounted."""
        for mount in self.resources.mounts:
            if isinstance(mount, Filesystem) and mount.device == self.device and mount is not self:
                self.resources.latest_on[self.device] = mount

    def _is_to_be_checked(self) -> bool:
        """A device that another file system was made on since holds nothing of this one any more."""
        latest = self.resources.latest_on.get(self.device)
        return self.checked and "fsck" in self.resources.checks and latest is self


@final
class Xfs(Filesystem):
    """A mounted XFS: ``path`` is where, ``device`` the block device, ``mkfs`` the flags it was made with."""

    def __init__(self, resources: Resources, on: BlockDevice, mkfs: Sequence[str] = ()) -> None:
        super().__init__(resources, "xfs", on, mkfs)


def filesystem_on(resources: Resources, kind: str, on: BlockDevice, mkfs: Sequence[str] = ()) -> Filesystem:
    """The object for a file system of that kind on a device; nothing is made or mounted."""
    return Xfs(resources, on, mkfs) if kind == "xfs" else Filesystem(resources, kind, on, mkfs)


@final
class Tmpfs(Mount):
    """A mounted tmpfs: ``path`` is where; its content is gone when it is unmounted."""

    kind = "tmpfs"

    def __init__(self, resources: Resources, options: Sequence[str]) -> None:
        path = resources.mount_point(resources.name(self.kind))
        super().__init__(resources, path, path, None)
        self.options = list(options)
        resources.vm.guest(mounts.mount, self.kind, path, self.kind, ",".join(options))
        self._mounted()

    def __repr__(self) -> str:
        return f"<tmpfs {self.path}>"
