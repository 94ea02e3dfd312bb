"""Cgroups that were removed, but that the kernel keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import cgroups, dying
from pytest_kernelfs.probes.cgroups import look_again
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import ROOT, Resources
from pytest_kernelfs.sizes import Size, parse_size

if TYPE_CHECKING:
    from pytest_kernelfs.resources.cgroup import Cgroup

KINDS = ("tmpfs", "page cache", "dentry", "zombie")
_ON_DISK = ("page cache", "dentry")
# A process for each zombie takes some 30 ms under emulation.
_TIMEOUT_S = 600.0


@final
class DyingCgroups:
    """What ``make_dying`` did: ``made`` cgroups were pinned and removed, ``dying`` of them were kept then."""

    def __init__(self, resources: Resources, kind: str, place: str) -> None:
        self.resources = resources
        self.kind = kind
        self.place = place
        self.made = 0
        self.dying = 0
        self._keeper = 0
        resources.on_teardown(f"pins of dying cgroups in {place}", self.release)

    def __repr__(self) -> str:
        return f"<{self.dying} of {self.made} cgroups dying, pinned by {self.kind}>"

    def make(self, number: int, version: int, parent: str, size: int) -> None:
        """Make them below a cgroup; for ``make_dying``."""
        vm = self.resources.vm
        look_again(self.resources)
        done = vm.guest(dying.make, version, parent, number, self.kind, self.place, size, timeout=_TIMEOUT_S)
        self.made, self.dying, self._keeper = number, int(done["dying"]), int(done["keeper"])

    def release(self) -> None:
        """Take away what pins them: remove the files, end the zombies."""
        self.resources.vm.guest(dying.release, self.place, self._keeper)
        self._keeper = 0


def make_dying(cgroup: Cgroup, number: int, kind: str, on: Mount | None, size: Size) -> DyingCgroups:
    """See ``Cgroup.make_dying``."""
    if kind not in KINDS:
        raise UsageError(f"make_dying: kind is one of {', '.join(KINDS)}, not {kind!r}")
    if type(number) is not int or number < 1:
        raise UsageError(f"make_dying: {number!r} is no number of cgroups")
    if kind in _ON_DISK and on is None:
        raise UsageError(f"make_dying: {kind} needs a file system to lie on: give on=xfs")
    if kind not in _ON_DISK and on is not None:
        raise UsageError(f"make_dying: {kind} lies on no file system of the test's: leave out 'on'")
    if on is not None:
        on.demand_mounted("make_dying, on")
    length = parse_size(size, "make_dying, size")
    parent = _parent(cgroup)
    resources = cgroup.resources
    pinned = DyingCgroups(resources, kind, f"{on.path if on else ROOT}/{resources.name('dying')}")
    pinned.make(number, cgroup.version, parent, length)
    return pinned


def _parent(cgroup: Cgroup) -> str:
    """The folder that they are made in; what pins them is charged to the controller memory."""
    if cgroup.version == 2:
        cgroup.resources.vm.guest(cgroups.enable, cgroup.path, ["memory"])
        return cgroup.path
    if "memory" not in cgroup.places:
        raise UsageError(
            f"make_dying: {cgroup!r} does not have the controller memory, which counts what pins"
        )
    return cgroup.places["memory"]
