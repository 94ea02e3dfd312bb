"""Resources of a test in a machine without a kernel."""

from __future__ import annotations

import pytest

from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.filesystem_factory import XfsFactory
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine


def mounted(resources: Resources, path: str) -> Mount:
    """Something that is mounted there, and has nothing to be taken down."""
    mount = Mount(resources, path, path, None)
    resources.mounts.append(mount)
    return mount


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def resources(machine: FakeMachine) -> Resources:
    return Resources(VM(machine))


@pytest.fixture
def disk_factory(resources: Resources) -> DiskFactory:
    return DiskFactory(resources)


@pytest.fixture
def loop_device_factory(resources: Resources) -> LoopDeviceFactory:
    return LoopDeviceFactory(resources)


@pytest.fixture
def xfs_factory(resources: Resources, loop_device_factory: LoopDeviceFactory) -> XfsFactory:
    return XfsFactory(resources, loop_device_factory)
