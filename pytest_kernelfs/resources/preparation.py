"""Preparing a machine once, for many tests to start from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar, final

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.machine import MachineSpec, Provider
from pytest_kernelfs.machines.vm import VM, Checkpoint
from pytest_kernelfs.resources import unfinished
from pytest_kernelfs.resources.cgroup import CgroupFactory
from pytest_kernelfs.resources.disk import Disk, DiskFactory
from pytest_kernelfs.resources.dm import DmDevice
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.filesystem import Filesystem
from pytest_kernelfs.resources.filesystem_factory import FilesystemFactory, XfsFactory
from pytest_kernelfs.resources.knobs import DropCaches, DynamicDebug, HungTask, ModuleParameter
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.netns import NetnsPairFactory
from pytest_kernelfs.resources.overlay import OverlayFactory
from pytest_kernelfs.resources.ram_disks import BrdFactory, NullBlkFactory, ScsiDebugFactory, ZramFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.storage.factory import StorageBackendFactory
from pytest_kernelfs.resources.sysctl import Sysctl
from pytest_kernelfs.resources.tracing import Tracing
from pytest_kernelfs.resources.writeback import Writeback

_T = TypeVar("_T")


@final
class Preparation:
    """A machine to prepare: ``vm``, and the factories that tests know as fixtures."""

    def __init__(self, vm: VM) -> None:
        self.vm = vm
        resources = Resources(vm)
        self.disk_factory = DiskFactory(resources)
        self.loop_device_factory = LoopDeviceFactory(resources)
        self.null_blk_factory = NullBlkFactory(resources)
        self.zram_factory = ZramFactory(resources)
        self.brd_factory = BrdFactory(resources)
        self.scsi_debug_factory = ScsiDebugFactory(resources)
        self.dm_factory = DmFactory(resources)
        self.filesystem_factory = FilesystemFactory(resources, self.loop_device_factory)
        self.xfs_factory = XfsFactory(resources, self.loop_device_factory)
        self.overlay_factory = OverlayFactory(resources, self._shared_xfs)
        self.storage_backend_factory = StorageBackendFactory(resources)
        self.netns_pair_factory = NetnsPairFactory(resources)
        self.cgroup_factory = CgroupFactory(resources)
        # What is set stays set in the forks, and is put back in none: they end with their tests.
        self.sysctl = Sysctl(resources)
        self.writeback = Writeback(resources, self.sysctl)
        self.drop_caches = DropCaches(resources)
        self.module_parameter = ModuleParameter(resources)
        self.dynamic_debug = DynamicDebug(resources)
        self.hung_task = HungTask(self.sysctl)
        self.tracing = Tracing(resources)
        self._xfs: Mount | None = None

    def checkpoint(self, **kept: Any) -> Checkpoint:
        """Save the machine as it is: files, mounts, processes, disks. It ends; tests get forks of it.

        What is named in ``kept`` (resources, or lists and dicts of them, or plain values) is found again in
        ``vm.kept`` of each fork. Raises: InfrastructureError.
        """
        return self.vm.checkpoint(**kept)

    def _shared_xfs(self) -> Mount:
        if self._xfs is None:
            self._xfs = self.xfs_factory()
        return self._xfs


@final
class Preparer:
    """Makes machines to prepare: the ``prepare`` fixture."""

    def __init__(
        self, provider: Provider, kernel: Kernel, spec: MachineSpec, make_room: Callable[[], None]
    ) -> None:
        """``make_room`` is called before a machine is started."""
        self._make_room = make_room
        self._provider = provider
        self._kernel = kernel
        self._spec = spec
        self._made: list[VM] = []

    def __call__(self) -> Preparation:
        """Start a machine; unless it is saved, it ends with the fixture in whose set-up this was called.

        Raises: InfrastructureError; UsageError if the provider cannot save machines.
        """
        self._make_room()
        vm = VM(self._provider.start_writable(self._kernel, self._spec))
        self._made.append(vm)
        unfinished.note(vm)
        return Preparation(vm)

    def close(self) -> None:
        """End the machines that are left, and remove what was saved."""
        for vm in self._made:
            vm.machine.destroy()
            if vm.saved is not None:
                vm.saved.discard()
        self._made.clear()


def unpack(vm: VM, checkpoint: Checkpoint) -> Resources:
    """Give a fork what its checkpoint kept: ``vm.kept``, made of resources of this very machine.

    Gives the resources to add to; they count the mounts that were kept.
    """
    resources = Resources(vm, prefix="fork-")
    vm.kept = _Rebinder(resources).rebind(checkpoint.kept)
    return resources


class _Rebinder:
    """Copies resources so that they belong to another machine, each once."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._copies: dict[int, Any] = {}

    def rebind(self, value: _T) -> _T:
        if isinstance(value, dict):
            return type(value)((key, self.rebind(item)) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return type(value)(self.rebind(item) for item in value)
        if not isinstance(getattr(value, "resources", None), Resources):
            return value
        if id(value) not in self._copies:
            self._copies[id(value)] = self._copy(value)
        rebound: _T = self._copies[id(value)]
        return rebound

    def _copy(self, value: Any) -> Any:
        twin = copy.copy(value)
        for name, attribute in vars(value).items():
            if not isinstance(attribute, Resources):
                setattr(twin, name, self.rebind(attribute))
        twin.resources = self._resources
        if isinstance(twin, Mount) and value in value.resources.mounts:
            self._resources.mounts.append(twin)
        if isinstance(twin, Disk):
            self._resources.disks.append(twin)
        if isinstance(twin, Filesystem) and _is_to_be_judged(value):
            twin.judge_with_test()
        return twin


def _is_to_be_judged(kept: Filesystem) -> bool:
    """Not one that another was made on since, nor one on a device that a test may leave suspended."""
    latest = kept.resources.latest_on.get(kept.device)
    return latest is kept and not isinstance(kept.on, DmDevice)
