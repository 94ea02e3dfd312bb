"""The public fixtures: thin compositions of resources."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

from pytest_kernelfs.errors import KernelfsError, UsageError
from pytest_kernelfs.run import Run

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate, Kernel
    from pytest_kernelfs.machines.vm import VM, Checkpoint
    from pytest_kernelfs.measure import Measurement
    from pytest_kernelfs.probes.umount import UmountRun
    from pytest_kernelfs.resources.disk import DiskFactory
    from pytest_kernelfs.resources.filesystem import Xfs, XfsFactory
    from pytest_kernelfs.resources.loop import LoopDevice, LoopDeviceFactory
    from pytest_kernelfs.resources.mount import Mount
    from pytest_kernelfs.resources.overlay import Overlay, OverlayFactory
    from pytest_kernelfs.resources.preparation import Preparer
    from pytest_kernelfs.resources.stack import Resources
    from pytest_kernelfs.run import Upcoming

RUN: pytest.StashKey[Run] = pytest.StashKey()
UPCOMING: pytest.StashKey[list[Upcoming]] = pytest.StashKey()
RESOURCES: pytest.StashKey[Resources] = pytest.StashKey()

__all__ = [
    "assert_no_dstate",
    "assert_umount_under",
    "checkpoint",
    "disk_factory",
    "kernel",
    "kernelfs_resources",
    "loop_device",
    "loop_device_factory",
    "overlay",
    "overlay_factory",
    "prepare",
    "record_measurement",
    "vm",
    "xfs",
    "xfs_factory",
]


class AssertUmountUnder(Protocol):
    """The ``assert_umount_under`` fixture."""

    def __call__(self, seconds: float, *mounts: Mount, parallel: bool = False) -> UmountRun: ...


class AssertNoDstate(Protocol):
    """The ``assert_no_dstate`` fixture."""

    def __call__(self, longer_than: float = 1.0, *, kernel_threads: bool = False) -> None: ...


@pytest.fixture(scope="session")
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    """The kernel under test: version, release, config. A test that reaches it runs once for each --kernel."""
    run = request.config.stash[RUN]
    candidate = getattr(request, "param", None)
    if isinstance(candidate, KernelfsError):
        raise candidate
    if candidate is None:
        candidate = _only_candidate(run)
    yield run.kernel(candidate)
    run.pool.release()


def _only_candidate(run: Run) -> Candidate:
    """For ``request.getfixturevalue``, which pytest cannot see when it makes parameters."""
    candidates = run.resolve()
    if len(candidates) > 1:
        raise UsageError(
            "this test reaches the fixture 'kernel' through request.getfixturevalue, so it cannot run once "
            "for each of several kernels; name 'kernel' or 'vm' in the test's arguments"
        )
    return candidates[0]


@pytest.fixture(scope="session")
def prepare(kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[Preparer]:
    """Makes machines to prepare, for a ``checkpoint`` fixture of the test's own: ``prepare()``."""
    from pytest_kernelfs.resources.preparation import Preparer

    run = request.config.stash[RUN]
    run.pool.sweep()
    preparer = Preparer(run.provider, kernel, run.machine_spec, run.pool.make_room)
    yield preparer
    preparer.close()


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint | None:
    """What the machines of tests start from: None for a kernel just booted.

    To be overridden, in a module, class or conftest, by a fixture that prepares a machine.
    """
    return None


@pytest.fixture
def vm(kernel: Kernel, checkpoint: Checkpoint | None, request: pytest.FixtureRequest) -> Iterator[VM]:
    """A running machine with the kernel under test."""
    from pytest_kernelfs.machines.pool import Wish
    from pytest_kernelfs.markers import isolation_of
    from pytest_kernelfs.resources.preparation import unpack
    from pytest_kernelfs.resources.stack import Resources

    run = request.config.stash[RUN]
    isolation = isolation_of(request.node, run.config.isolation)
    saved = checkpoint.saved if checkpoint is not None else None
    machine = run.pool.take(Wish(kernel, run.machine_spec, saved), _scope(request.node, isolation))
    if isolation != "test":
        machine.mark_dmesg(request.node.nodeid)
    run.expect(request.node.stash.get(UPCOMING, []), saved)
    request.node.stash[RESOURCES] = unpack(machine, checkpoint) if checkpoint else Resources(machine)
    yield machine
    run.pool.give_back()
    if isolation == "test":
        run.pool.release()


def _scope(item: pytest.Item, isolation: str) -> str:
    """A name that all tests have in common which share a machine."""
    if isolation == "session":
        return "session"
    if isolation == "test":
        return item.nodeid
    kind = pytest.Class if isolation == "class" else pytest.Module
    parent = item.getparent(kind) or item.getparent(pytest.Module)
    return parent.nodeid if parent is not None else item.nodeid


@pytest.fixture
def kernelfs_resources(
    vm: VM,  # noqa: ARG001  (its end comes after theirs)
    request: pytest.FixtureRequest,
    record_measurement: Callable[[Measurement], None],
) -> Iterator[Resources]:
    """What the test made in its machine; taken down after it, the latest first."""
    resources = request.node.stash[RESOURCES]
    resources.record = record_measurement
    yield resources
    try:
        resources.close()
    except KernelfsError:
        request.config.stash[RUN].pool.release()
        raise


@pytest.fixture
def disk_factory(kernelfs_resources: Resources) -> DiskFactory:
    """Makes disks: ``disk_factory(size="4G", write_bps="20M")``."""
    from pytest_kernelfs.resources.disk import DiskFactory

    return DiskFactory(kernelfs_resources)


@pytest.fixture
def loop_device_factory(kernelfs_resources: Resources) -> LoopDeviceFactory:
    """Makes loop devices: ``loop_device_factory(size="1G", on=xfs)``."""
    from pytest_kernelfs.resources.loop import LoopDeviceFactory

    return LoopDeviceFactory(kernelfs_resources)


@pytest.fixture
def loop_device(loop_device_factory: LoopDeviceFactory) -> LoopDevice:
    """A loop device of 512 MiB on a sparse file in memory."""
    return loop_device_factory()


@pytest.fixture
def xfs_factory(kernelfs_resources: Resources, loop_device_factory: LoopDeviceFactory) -> XfsFactory:
    """Makes XFS file systems: ``xfs_factory(on=disk, options=["noatime"], project_quota=True)``."""
    from pytest_kernelfs.resources.filesystem import XfsFactory

    return XfsFactory(kernelfs_resources, loop_device_factory)


@pytest.fixture
def xfs(xfs_factory: XfsFactory) -> Xfs:
    """An XFS of 512 MiB on a loop device, with features that the kernel under test can mount."""
    return xfs_factory()


@pytest.fixture
def overlay_factory(kernelfs_resources: Resources, request: pytest.FixtureRequest) -> OverlayFactory:
    """Makes overlay mounts: ``overlay_factory(on=xfs, lower=[{"file": b"content"}], volatile=True)``."""
    from pytest_kernelfs.resources.overlay import OverlayFactory

    def default_on() -> Mount:
        mount: Mount = request.getfixturevalue("xfs")
        return mount

    return OverlayFactory(kernelfs_resources, default_on)


@pytest.fixture
def overlay(overlay_factory: OverlayFactory) -> Overlay:
    """An overlay on the test's ``xfs``."""
    return overlay_factory()


@pytest.fixture
def assert_umount_under(kernelfs_resources: Resources) -> AssertUmountUnder:
    """Unmount and demand that each umount takes at most so many seconds.

    Without mounts named: all overlays of the test, or all its mounts if it has no overlay.
    """
    from pytest_kernelfs.assertions import umount_under

    def check(seconds: float, *mounts: Mount, parallel: bool = False) -> UmountRun:
        __tracebackhide__ = True
        chosen = mounts or kernelfs_resources.default_mounts()
        return umount_under(
            kernelfs_resources.vm, seconds, chosen, parallel=parallel, record=kernelfs_resources.record
        )

    return check


@pytest.fixture
def assert_no_dstate(vm: VM) -> AssertNoDstate:
    """Demand that no task stays in uninterruptible sleep for so long."""
    from pytest_kernelfs.assertions import no_dstate

    def check(longer_than: float = 1.0, *, kernel_threads: bool = False) -> None:
        __tracebackhide__ = True
        no_dstate(vm, longer_than, kernel_threads=kernel_threads)

    return check


@pytest.fixture
def record_measurement(request: pytest.FixtureRequest) -> Callable[[Measurement], None]:
    """Keep a measurement with the test's report; the matrix shows the worst time."""
    from pytest_kernelfs.report.results import MEASUREMENT_PROPERTY

    def record(measurement: Measurement) -> None:
        request.node.user_properties.append((MEASUREMENT_PROPERTY, measurement.to_dict()))

    return record
