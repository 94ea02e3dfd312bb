"""Privileged filesystem and cgroup tests on real, freshly booted kernels.

The names below are for the annotations of tests; they are imported on first
use, because the plugin must cost nothing where it is installed and unused.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kernelfs.fixtures.checks import AssertDmesgClean, AssertNoLeaks
    from pytest_kernelfs.fixtures.tasks import AssertNoDstate
    from pytest_kernelfs.fixtures.umounts import AssertUmountUnder
    from pytest_kernelfs.kernels.kernel import Kernel
    from pytest_kernelfs.kernels.version import KernelVersion
    from pytest_kernelfs.machines.vm import VM, Checkpoint, CommandResult
    from pytest_kernelfs.measure import Measurement
    from pytest_kernelfs.probes.umount import UmountRun
    from pytest_kernelfs.resources.disk import Disk, DiskFactory
    from pytest_kernelfs.resources.filesystem import Xfs, XfsFactory
    from pytest_kernelfs.resources.loop import LoopDevice, LoopDeviceFactory
    from pytest_kernelfs.resources.overlay import Overlay, OverlayFactory
    from pytest_kernelfs.resources.preparation import Preparation, Preparer

__version__ = "0.1.0"

_HOMES = {
    "AssertDmesgClean": "fixtures.checks",
    "AssertNoDstate": "fixtures.tasks",
    "AssertNoLeaks": "fixtures.checks",
    "AssertUmountUnder": "fixtures.umounts",
    "Checkpoint": "machines.vm",
    "CommandResult": "machines.vm",
    "Disk": "resources.disk",
    "DiskFactory": "resources.disk",
    "Kernel": "kernels.kernel",
    "KernelVersion": "kernels.version",
    "LoopDevice": "resources.loop",
    "LoopDeviceFactory": "resources.loop",
    "Measurement": "measure",
    "Overlay": "resources.overlay",
    "OverlayFactory": "resources.overlay",
    "Preparation": "resources.preparation",
    "Preparer": "resources.preparation",
    "UmountRun": "probes.umount",
    "VM": "machines.vm",
    "Xfs": "resources.filesystem",
    "XfsFactory": "resources.filesystem",
}

__all__ = [
    "VM",
    "AssertDmesgClean",
    "AssertNoDstate",
    "AssertNoLeaks",
    "AssertUmountUnder",
    "Checkpoint",
    "CommandResult",
    "Disk",
    "DiskFactory",
    "Kernel",
    "KernelVersion",
    "LoopDevice",
    "LoopDeviceFactory",
    "Measurement",
    "Overlay",
    "OverlayFactory",
    "Preparation",
    "Preparer",
    "UmountRun",
    "Xfs",
    "XfsFactory",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
