"""Privileged file system and cgroup tests on real kernels, in virtual machines.

The names below are for the annotations of tests; they are imported on first
use, because the plugin must cost nothing where it is installed and unused.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_kernelfs.assertions.space import Reclaimed
    from pytest_kernelfs.fixtures.cgroups import AssertNoDyingCgroups, AssertReadUnder
    from pytest_kernelfs.fixtures.checks import AssertDmesgClean, AssertNoLeaks
    from pytest_kernelfs.fixtures.network import AssertRttUnder
    from pytest_kernelfs.fixtures.space import AssertSerialShape, AssertSpaceReclaimed
    from pytest_kernelfs.fixtures.tasks import AssertNoDstate
    from pytest_kernelfs.fixtures.umounts import AssertUmountUnder
    from pytest_kernelfs.kernels.kernel import Kernel
    from pytest_kernelfs.kernels.version import KernelVersion
    from pytest_kernelfs.machines.machine import DiskSpec, Machine, MachineSpec, Provider, Settings
    from pytest_kernelfs.machines.plain import PlainMachine, PlainProvider
    from pytest_kernelfs.machines.tenant.access import Tenancy
    from pytest_kernelfs.machines.tenant.provider import CommandProvider
    from pytest_kernelfs.machines.vm import VM, Checkpoint, CommandResult, LogRecord
    from pytest_kernelfs.measure import Measurement
    from pytest_kernelfs.probes.cgroups import DyingRun, ReadRun
    from pytest_kernelfs.probes.dstate import StuckTask
    from pytest_kernelfs.probes.rtt import RttBurst, RttRun, RttSample, SoftirqLoad
    from pytest_kernelfs.probes.sampling import Probes, Sampled
    from pytest_kernelfs.probes.umount import UmountRun
    from pytest_kernelfs.resources.block import BlockDevice
    from pytest_kernelfs.resources.cgroup import Cgroup, CgroupFactory
    from pytest_kernelfs.resources.cgroup_dying import DyingCgroups
    from pytest_kernelfs.resources.cgroup_process import CgroupProcess
    from pytest_kernelfs.resources.disk import Disk, DiskFactory
    from pytest_kernelfs.resources.dm import DmDevice
    from pytest_kernelfs.resources.dm_factory import DmFactory
    from pytest_kernelfs.resources.dm_faults import Delay, Flakey
    from pytest_kernelfs.resources.dm_log_writes import LogWrites
    from pytest_kernelfs.resources.dm_snapshot import Snapshot, SnapshotOrigin, SnapshotStatus
    from pytest_kernelfs.resources.dm_thin import Thin, ThinPool, ThinPoolStatus
    from pytest_kernelfs.resources.filesystem import Filesystem, Tmpfs, Xfs
    from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory, XfsFactory
    from pytest_kernelfs.resources.knobs import DropCaches, DynamicDebug, HungTask, ModuleParameter
    from pytest_kernelfs.resources.loop import LoopDevice, LoopDeviceFactory
    from pytest_kernelfs.resources.mount import Mount
    from pytest_kernelfs.resources.netns import Netns, NetnsPair, NetnsPairFactory, RttWatch
    from pytest_kernelfs.resources.overlay import Overlay, OverlayFactory
    from pytest_kernelfs.resources.preparation import Preparation, Preparer
    from pytest_kernelfs.resources.quota import Quota, Quotas, QuotaUsage
    from pytest_kernelfs.resources.ram_disks import (
        Brd,
        BrdFactory,
        NullBlk,
        NullBlkFactory,
        RamDisk,
        ScsiDebug,
        ScsiDebugFactory,
        Zram,
        ZramFactory,
        ZramUsage,
    )
    from pytest_kernelfs.resources.storage.backend import (
        StorageBackend,
        StorageContainer,
        StorageImage,
        StorageUsage,
    )
    from pytest_kernelfs.resources.storage.factory import StorageBackendFactory
    from pytest_kernelfs.resources.sysctl import Sysctl
    from pytest_kernelfs.resources.tracing import Trace, TraceEvent, Tracing
    from pytest_kernelfs.resources.user_namespace import UserNamespaceOverlay
    from pytest_kernelfs.resources.writeback import Writeback, WritebackPhase, WritebackWatch

__version__ = "0.1.0"

_HOMES = {
    "VM": "machines.vm",
    "AssertDmesgClean": "fixtures.checks",
    "AssertNoDstate": "fixtures.tasks",
    "AssertNoDyingCgroups": "fixtures.cgroups",
    "AssertNoLeaks": "fixtures.checks",
    "AssertReadUnder": "fixtures.cgroups",
    "AssertRttUnder": "fixtures.network",
    "AssertSerialShape": "fixtures.space",
    "AssertSpaceReclaimed": "fixtures.space",
    "AssertUmountUnder": "fixtures.umounts",
    "BlockDevice": "resources.block",
    "Brd": "resources.ram_disks",
    "BrdFactory": "resources.ram_disks",
    "Cgroup": "resources.cgroup",
    "CgroupFactory": "resources.cgroup",
    "CgroupProcess": "resources.cgroup_process",
    "Checkpoint": "machines.vm",
    "CommandProvider": "machines.tenant.provider",
    "CommandResult": "machines.vm",
    "Delay": "resources.dm_faults",
    "Disk": "resources.disk",
    "DiskFactory": "resources.disk",
    "DiskSpec": "machines.machine",
    "DmDevice": "resources.dm",
    "DmFactory": "resources.dm_factory",
    "DropCaches": "resources.knobs",
    "DyingCgroups": "resources.cgroup_dying",
    "DyingRun": "probes.cgroups",
    "DynamicDebug": "resources.knobs",
    "Filesystem": "resources.filesystem",
    "FilesystemFactory": "resources.filesystem_factory",
    "Flakey": "resources.dm_faults",
    "HungTask": "resources.knobs",
    "Kernel": "kernels.kernel",
    "KernelVersion": "kernels.version",
    "LogRecord": "machines.vm",
    "LogWrites": "resources.dm_log_writes",
    "LoopDevice": "resources.loop",
    "LoopDeviceFactory": "resources.loop",
    "Machine": "machines.machine",
    "MachineSpec": "machines.machine",
    "Measurement": "measure",
    "ModuleParameter": "resources.knobs",
    "Mount": "resources.mount",
    "Netns": "resources.netns",
    "NetnsPair": "resources.netns",
    "NetnsPairFactory": "resources.netns",
    "NullBlk": "resources.ram_disks",
    "NullBlkFactory": "resources.ram_disks",
    "Overlay": "resources.overlay",
    "OverlayFactory": "resources.overlay",
    "PlainMachine": "machines.plain",
    "PlainProvider": "machines.plain",
    "Preparation": "resources.preparation",
    "Preparer": "resources.preparation",
    "Probes": "probes.sampling",
    "Provider": "machines.machine",
    "Quota": "resources.quota",
    "QuotaUsage": "resources.quota",
    "Quotas": "resources.quota",
    "RamDisk": "resources.ram_disks",
    "ReadRun": "probes.cgroups",
    "Reclaimed": "assertions.space",
    "RttBurst": "probes.rtt",
    "RttRun": "probes.rtt",
    "RttSample": "probes.rtt",
    "RttWatch": "resources.netns",
    "Sampled": "probes.sampling",
    "ScsiDebug": "resources.ram_disks",
    "ScsiDebugFactory": "resources.ram_disks",
    "Settings": "machines.machine",
    "Snapshot": "resources.dm_snapshot",
    "SnapshotOrigin": "resources.dm_snapshot",
    "SnapshotStatus": "resources.dm_snapshot",
    "SoftirqLoad": "probes.rtt",
    "StorageBackend": "resources.storage.backend",
    "StorageBackendFactory": "resources.storage.factory",
    "StorageContainer": "resources.storage.backend",
    "StorageImage": "resources.storage.backend",
    "StorageUsage": "resources.storage.backend",
    "StuckTask": "probes.dstate",
    "Sysctl": "resources.sysctl",
    "Tenancy": "machines.tenant.access",
    "Thin": "resources.dm_thin",
    "ThinPool": "resources.dm_thin",
    "ThinPoolStatus": "resources.dm_thin",
    "Tmpfs": "resources.filesystem",
    "Trace": "resources.tracing",
    "TraceEvent": "resources.tracing",
    "Tracing": "resources.tracing",
    "UmountRun": "probes.umount",
    "UserNamespaceOverlay": "resources.user_namespace",
    "Writeback": "resources.writeback",
    "WritebackPhase": "resources.writeback",
    "WritebackWatch": "resources.writeback",
    "Xfs": "resources.filesystem",
    "XfsFactory": "resources.filesystem_factory",
    "Zram": "resources.ram_disks",
    "ZramFactory": "resources.ram_disks",
    "ZramUsage": "resources.ram_disks",
}

__all__ = [
    "VM",
    "AssertDmesgClean",
    "AssertNoDstate",
    "AssertNoDyingCgroups",
    "AssertNoLeaks",
    "AssertReadUnder",
    "AssertRttUnder",
    "AssertSerialShape",
    "AssertSpaceReclaimed",
    "AssertUmountUnder",
    "BlockDevice",
    "Brd",
    "BrdFactory",
    "Cgroup",
    "CgroupFactory",
    "CgroupProcess",
    "Checkpoint",
    "CommandProvider",
    "CommandResult",
    "Delay",
    "Disk",
    "DiskFactory",
    "DiskSpec",
    "DmDevice",
    "DmFactory",
    "DropCaches",
    "DyingCgroups",
    "DyingRun",
    "DynamicDebug",
    "Filesystem",
    "FilesystemFactory",
    "Flakey",
    "HungTask",
    "Kernel",
    "KernelVersion",
    "LogRecord",
    "LogWrites",
    "LoopDevice",
    "LoopDeviceFactory",
    "Machine",
    "MachineSpec",
    "Measurement",
    "ModuleParameter",
    "Mount",
    "Netns",
    "NetnsPair",
    "NetnsPairFactory",
    "NullBlk",
    "NullBlkFactory",
    "Overlay",
    "OverlayFactory",
    "PlainMachine",
    "PlainProvider",
    "Preparation",
    "Preparer",
    "Probes",
    "Provider",
    "Quota",
    "QuotaUsage",
    "Quotas",
    "RamDisk",
    "ReadRun",
    "Reclaimed",
    "RttBurst",
    "RttRun",
    "RttSample",
    "RttWatch",
    "Sampled",
    "ScsiDebug",
    "ScsiDebugFactory",
    "Settings",
    "Snapshot",
    "SnapshotOrigin",
    "SnapshotStatus",
    "SoftirqLoad",
    "StorageBackend",
    "StorageBackendFactory",
    "StorageContainer",
    "StorageImage",
    "StorageUsage",
    "StuckTask",
    "Sysctl",
    "Tenancy",
    "Thin",
    "ThinPool",
    "ThinPoolStatus",
    "Tmpfs",
    "Trace",
    "TraceEvent",
    "Tracing",
    "UmountRun",
    "UserNamespaceOverlay",
    "Writeback",
    "WritebackPhase",
    "WritebackWatch",
    "Xfs",
    "XfsFactory",
    "Zram",
    "ZramFactory",
    "ZramUsage",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
