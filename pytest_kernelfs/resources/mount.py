"""What every mounted thing can do, whether a file system or an overlay."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_kernelfs.arguments import check_texts, lies_below
from pytest_kernelfs.assertions.umount import umount_under
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import files, mounts, syscalls
from pytest_kernelfs.probes.umount import UmountRun
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, parse_size

if TYPE_CHECKING:
    from pytest_kernelfs.resources.disk import Disk


class Mount:
    """A mount in the guest.

    ``path`` is where it is mounted, ``backing`` a folder on the file system
    that its data is written back to, ``disk`` the disk below it, if it is on one.
    """

    kind = "mount"

    def __init__(self, resources: Resources, path: str, backing: str, disk: Disk | None) -> None:
        self.resources = resources
        self.path = path
        self.backing = backing
        self.disk = disk

    def demand_mounted(self, what: str) -> None:
        """Raises: UsageError if it is not mounted; ``what`` names the argument that it was given as.

        What is made below ``path`` then lies in the machine's memory, and the test sees no difference.
        """
        if self not in self.resources.mounts:
            raise UsageError(f"{what}: {self!r} is not mounted; mount it again with mount()")

    def _demand_there(self, what: str) -> None:
        """As ``demand_mounted``, but by whomever it was mounted."""
        if self not in self.resources.mounts and not self.resources.vm.guest(mounts.is_mounted, self.path):
            self.demand_mounted(what)

    def _mounted(self) -> None:
        """To be called once it is mounted: from now on it is unmounted with the test."""
        self.resources.mounts.append(self)
        self.resources.on_teardown(f"{self.kind} {self.path}", self._take_down)

    def _take_down(self) -> None:
        """What is to be done with it when the test is over."""
        self.umount()

    def write(self, path: str, size: Size) -> float:
        """Write ``size`` bytes of incompressible data, generated beforehand, to a file of this mount.

        Gives the seconds it took. Raises: UsageError, GuestCommandError.
        """
        if not path or path.endswith("/") or not lies_below(path):
            raise UsageError(f"{self.kind}.write: {path!r} is no path below {self.path}")
        self._demand_there(f"{self.kind}.write")
        target = posixpath.join(self.path, path)
        return float(self.resources.vm.guest(files.write, target, parse_size(size), timeout=300.0))

    def sync(self) -> None:
        """Write all dirty data of this file system back: syncfs(2). Raises: UsageError if not mounted."""
        self._demand_there(f"{self.kind}.sync")
        self.resources.vm.guest(syscalls.sync_file_system, self.path, timeout=300.0)

    def remount(self, options: Sequence[str]) -> None:
        """Change options of the mount, such as ["ro"]; flags that are not named stay as they are.

        Raises: GuestCommandError with the kernel's reason.
        """
        words = check_texts(f"{self.kind}.remount: options", options)
        self.resources.vm.guest(mounts.remount, self.path, ",".join(words), timeout=300.0)

    def umount(self) -> None:
        """Unmount; a mount that the test unmounted itself is no error.

        Raises: GuestCommandError, naming who keeps it busy.
        """
        self.resources.vm.guest(mounts.umount, self.path, timeout=300.0)
        self.forget()

    def forget(self) -> None:
        """Note that it is no longer mounted."""
        if self in self.resources.mounts:
            self.resources.mounts.remove(self)

    def assert_umount_under(self, seconds: float) -> UmountRun:
        """Unmount, and fail the test if the system call takes longer than ``seconds``.

        Gives what was measured. Raises: AssertionError, UsageError.
        """
        __tracebackhide__ = True
        return umount_under(self.resources.vm, seconds, [self], record=self.resources.record)


def check_mount(what: str, given: Any) -> None:
    """Raises: UsageError if ``given``, the argument that ``what`` names, is no mount of a test."""
    if not isinstance(given, Mount):
        raise UsageError(
            f"{what}: {given!r} is no mount; give what a factory of file systems or overlays made"
        )
