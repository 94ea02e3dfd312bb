"""Everything that one test made in its machine, taken down in the reverse order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    UsageError,
)
from pytest_kernelfs.machines.vm import VM

if TYPE_CHECKING:
    from pytest_kernelfs.measure import Measurement
    from pytest_kernelfs.resources.disk import Disk
    from pytest_kernelfs.resources.mount import Mount

# Where resources live in the guest.
ROOT = "/run/kernelfs"


class Resources:
    """The resources of one test.

    One stack for all kinds: a loop device on an overlay goes before the
    overlay, whatever factory made which.
    """

    def __init__(self, vm: VM, prefix: str = "") -> None:
        """``prefix`` goes before all names, which keeps them apart from those that are taken already."""
        self.vm = vm
        self._prefix = prefix
        self.mounts: list[Mount] = []
        self.disks: list[Disk] = []
        self.record: Callable[[Measurement], None] | None = None
        """Told every measurement of the test, by whom the test wants it kept."""
        self.checks: frozenset[str] = frozenset()
        """The names of the checks that are on for the test: "fsck" and others."""
        self.findings: list[str] = []
        """What was found wrong with the kernel after the test; the test fails with these texts."""
        self.latest_on: dict[str, Mount] = {}
        """The file system that was last mounted from each device; the others on it are overwritten."""
        self.dying_before: Mapping[str, int] | None = None
        """How many cgroups were dying in each hierarchy before the test, and are not its own; None if nobody
        has looked yet."""
        self._undo: list[tuple[str, Callable[[], Any]]] = []
        self._undo_first: list[tuple[str, Callable[[], Any]]] = []
        self._forget: list[Callable[[], Any]] = []
        self._numbers = itertools.count(1)
        self._closed = False
        vm.after_power_cut.append(self._after_power_cut)

    def name(self, kind: str) -> str:
        """A name that no other resource of the test has: "overlay-3". Raises: UsageError after the test."""
        self.demand_open(kind)
        return f"{self._prefix}{kind}-{next(self._numbers)}"

    def mount_point(self, name: str) -> str:
        """Where a file system of that name is mounted in the machine."""
        return f"{self.vm.machine.mounts}/{name}"

    def on_teardown(self, what: str, undo: Callable[[], Any], *, first: bool = False) -> None:
        """Have ``undo`` called when the test is over; ``what`` names it in errors.

        ``first`` is for what lets I/O go on: nothing that waits for that I/O can be taken down before.

        Raises: UsageError if the test is over already, and nobody would call it.
        """
        self.demand_open(what)
        (self._undo_first if first else self._undo).append((what, undo))

    def demand_open(self, what: str) -> None:
        """Raises: UsageError if the test is over; to be called before something is made without a name."""
        if self._closed:
            raise UsageError(
                f"{what}: the test that this was made for is over, and nothing would take it down; "
                "ask for the fixture in each test that uses it"
            )

    def on_power_cut(self, forget: Callable[[], Any]) -> None:
        """Have ``forget`` called when the machine has lost its power, and another has taken its place."""
        self._forget.append(forget)

    def default_mounts(self) -> list[Mount]:
        """What an assertion means that names no mount: the overlays, or all mounts if there are none."""
        overlays = [mount for mount in self.mounts if mount.kind == "overlay"]
        return overlays or list(self.mounts)

    def _after_power_cut(self) -> None:
        """Forget what lived in the machine that lost its power; its disks are there again."""
        self.mounts.clear()
        self.latest_on.clear()
        self.dying_before = {}
        self._leave_the_rest()
        for forget in self._forget:
            forget()
        for disk in self.disks:
            disk.find_again()

    def close(self) -> None:
        """Take everything down.

        A machine that is gone has nothing to take down; on one that died or
        stopped answering meanwhile, the rest is left to the machine's end.

        Raises: InfrastructureError at the first thing that will not go: what lies below it would not either;
        KernelMisbehaved or GuestTimeout if the kernel fails meanwhile, or has failed and the test did not
        notice.
        """
        try:
            self._take_all_down()
        finally:
            self.mounts.clear()
            self._closed = True

    def _take_all_down(self) -> None:
        while self._undo_first or self._undo:
            what, undo = (self._undo_first or self._undo).pop()
            if not self.vm.usable:
                self._leave_the_rest()
                self.vm.machine.check_alive()
                break
            try:
                undo()
            except (KernelMisbehaved, GuestTimeout):
                self._leave_the_rest()
                raise
            except KernelfsError as error:
                self._leave_the_rest()
                raise InfrastructureError(
                    f"the {what} was not taken down after the test, so no other goes on from there: {error}"
                ) from None

    def _leave_the_rest(self) -> None:
        self._undo_first.clear()
        self._undo.clear()
