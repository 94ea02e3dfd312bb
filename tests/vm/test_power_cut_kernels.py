"""A file system goes from one kernel to another over a power cut, and back."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, DiskFactory, Kernel, XfsFactory
from pytest_kernelfs.fixtures.machines import RUN


@pytest.fixture
def other(kernel: Kernel, request: pytest.FixtureRequest) -> Kernel:
    """The kernel at the other end of this run's matrix, for the oldest and the newest."""
    run = request.config.stash[RUN]
    kernels = sorted((run.kernel(candidate) for candidate in run.resolve()), key=lambda one: one.version)
    ends = {kernels[0].version: kernels[-1], kernels[-1].version: kernels[0]}
    other = ends.get(kernel.version)
    if other is None or other.version == kernel.version:
        pytest.skip("for the oldest and the newest of several kernels")
    return other


def test_what_one_kernel_synced_another_reads(
    vm: VM, kernel: Kernel, other: Kernel, disk_factory: DiskFactory, xfs_factory: XfsFactory
) -> None:
    disk = disk_factory(size="512M", power_cut=True)
    # What the older of the two can mount.
    features = ["-m", "rmapbt=0,inobtcount=0,bigtime=0", "-i", "nrext64=0"]
    xfs = xfs_factory(on=disk, mkfs=features)
    vm.run(f"echo {kernel.release} > {xfs.path}/file && sync -f {xfs.path}/file", check=True)
    vm.power_cut(kernel=other)
    assert vm.run(["uname", "-r"]).stdout.strip() == other.release == vm.kernel.release
    xfs.mount()
    assert vm.get(f"{xfs.path}/file").decode().strip() == kernel.release
    vm.run(f"echo {other.release} > {xfs.path}/file && sync -f {xfs.path}/file", check=True)
    vm.power_cut(kernel=kernel.release)
    assert vm.run(["uname", "-r"]).stdout.strip() == kernel.release
    xfs.mount()
    assert vm.get(f"{xfs.path}/file").decode().strip() == other.release
