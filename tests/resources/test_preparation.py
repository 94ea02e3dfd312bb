"""What a checkpoint kept is in its forks what it was when it was saved."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM, Checkpoint
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.overlay import OverlayFactory
from pytest_kernelfs.resources.preparation import unpack
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


class NothingSaved:
    """Nothing was saved."""

    def discard(self) -> None: ...


def fork(**kept: object) -> tuple[VM, Resources]:
    """A machine that begins with what a checkpoint kept, and the resources to add to."""
    vm = VM(FakeMachine(mount_overlay="old"))
    return vm, unpack(vm, Checkpoint(NothingSaved(), dict(kept)))


def test_what_was_mounted_is_mounted(xfs_factory: XfsFactory) -> None:
    vm, resources = fork(xfs=xfs_factory())
    assert resources.mounts == [vm.kept["xfs"]]
    with pytest.raises(UsageError, match="is mounted"):
        vm.kept["xfs"].assert_sound()


def test_what_was_unmounted_is_not(
    xfs_factory: XfsFactory, machine: FakeMachine, resources: Resources
) -> None:
    machine.answers["mount_overlay"] = "old"
    xfs, base = xfs_factory(), xfs_factory()
    overlay = OverlayFactory(resources, lambda: base)()
    overlay.umount()
    xfs.umount()
    vm, made = fork(xfs=xfs, overlay=overlay, base=base)
    assert made.default_mounts() == [vm.kept["base"]]
    with pytest.raises(UsageError, match="is not mounted; mount it again"):
        LoopDeviceFactory(made)(on=vm.kept["xfs"])
    vm.kept["overlay"].mount()
    assert made.default_mounts() == [vm.kept["overlay"]]
