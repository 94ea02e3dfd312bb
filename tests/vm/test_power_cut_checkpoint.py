"""Forks of a checkpoint lose their power; what was saved with it, and what a fork flushed since, is kept."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Checkpoint, Preparer
from pytest_kernelfs.errors import UsageError
from tests.vm.direct import read_direct, write_direct

pytestmark = pytest.mark.kernel(">=7.0")


@pytest.fixture(scope="module")
def checkpoint(prepare: Preparer) -> Checkpoint:
    machine = prepare()
    disk = machine.disk_factory(size="512M", power_cut=True, sector_size=4096)
    xfs = machine.xfs_factory(on=disk)
    machine.vm.run(f"echo saved > {xfs.path}/saved; sync", check=True)
    plain = machine.disk_factory(size="16M", cache="writethrough", power_cut=True)
    machine.vm.call(write_direct, plain.path, b"plain")
    with pytest.raises(UsageError, match="only the machine of the fixture 'vm'"):
        machine.vm.power_cut()
    return machine.checkpoint(xfs=xfs, plain=plain)


@pytest.mark.parametrize("keep", ["flushed", "written"])
def test_a_fork_keeps_what_was_saved_and_what_it_synced(vm: VM, keep: str) -> None:
    xfs, plain = vm.kept["xfs"], vm.kept["plain"]
    assert vm.run(["blockdev", "--getss", "--getpbsz", xfs.device]).stdout.split() == ["4096", "4096"]
    for number in range(2):
        vm.run(f"test ! -e {xfs.path}/file-{number}", check=True)
        vm.run(f"echo {keep} > {xfs.path}/file-{number}; sync -f {xfs.path}; echo x > {xfs.path}/dirty")
        vm.call(write_direct, plain.path, f"plain {number}".encode(), 4096, 4096)
        vm.power_cut(keep=keep)
        assert vm.call(read_direct, plain.path)[1] == b"plain"
        assert vm.call(read_direct, plain.path, 4096)[1] == f"plain {number}".encode()
        xfs.mount()
        assert vm.get(f"{xfs.path}/saved") == b"saved\n"
        assert vm.get(f"{xfs.path}/file-{number}").decode().strip() == keep
        assert vm.run(f"test -s {xfs.path}/dirty").failed
