"""What cgroups there are, what is missing, and that everything is put back."""

from __future__ import annotations

import pytest

from pytest_kernelfs import VM, Cgroup, CgroupFactory, Kernel
from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.stack import Resources


def state(vm: VM) -> tuple[str, str, str]:
    """Mounts, which hierarchy each controller is in, and what version 2 gives to its children."""
    commands = (
        "grep cgroup /proc/mounts",
        "cut -f 1,2,4 /proc/cgroups",
        "cat /sys/fs/cgroup/cgroup.subtree_control; ls -d /sys/fs/cgroup/*/ 2>&1",
    )
    first, second, third = (vm.run(command).stdout for command in commands)
    return first, second, third


def test_everything_is_put_back(vm: VM) -> None:
    before = state(vm)
    recorded: list[Measurement] = []
    resources = Resources(vm)
    resources.record = recorded.append
    factory = CgroupFactory(resources)
    # From 6.12 on the cpuset of version 1 is an option, which Debian leaves out.
    cpuset = ["cpuset"] if vm.kernel.version.matches("<6.12") else []
    old = factory(version=1, controllers=["pids", "cpu", "io", *cpuset], cpu_max=0.5)
    assert set(old.controllers) == {"pids", "cpu", "blkio", *cpuset}
    assert "freezer" in old.places
    child = old.create("child")
    child.start(["sleep", "600"])
    assert child.read("cpu.cfs_quota_us") == -1
    assert not cpuset or old.read("cpuset.cpus") != []
    old.freeze()
    with pytest.raises(
        GuestCommandError, match=r"version 1 hierarchy at /run/kernelfs/cgroup-v1/pids has it"
    ):
        factory(pids_max=3)
    new = factory(controllers=["memory"])
    new.create("a").create("b").start(["sleep", "600"])
    assert state(vm) != before
    resources.close()
    assert state(vm) == before
    assert all(measurement.unit == "retries" for measurement in recorded)


def test_what_is_missing_is_named(cgroup_factory: CgroupFactory, kernel: Kernel) -> None:
    with pytest.raises(
        GuestCommandError,
        match=rf"kernel {kernel.release[:4]}.* no controller net_prio .*version 2; .*memory",
    ):
        cgroup_factory(controllers=["net_prio"])
    with pytest.raises(
        GuestCommandError, match=r"no controller nonsense for cgroup version 1 .*it has .*freezer"
    ):
        cgroup_factory(version=1, controllers=["nonsense"])
    cgroup = cgroup_factory(controllers=["memory"])
    with pytest.raises(GuestCommandError, match=r"no file memory.nonsense .*only memory.current"):
        cgroup.read("memory.nonsense")
    with pytest.raises(GuestCommandError, match=r"no file pids.max .*it has no controller pids"):
        cgroup.limit(pids_max=4)
    with pytest.raises(
        GuestCommandError, match=r"the kernel refuses 'soon' in .*memory.max: Invalid argument"
    ):
        cgroup.write("memory.max", "soon")
    if kernel.version.matches(">=6.11") and kernel.config_option("MEMCG_V1") != "y":
        with pytest.raises(GuestCommandError, match=r"no controller memory for cgroup version 1"):
            cgroup_factory(version=1, memory_max="64M")
    else:
        with pytest.raises(GuestCommandError, match=r"while cgroups of version 2 use it"):
            cgroup_factory(version=1, memory_max="64M")


def test_files_are_values(vm: VM, cgroup: Cgroup) -> None:
    cgroup.run("dd if=/dev/zero of=/run/file bs=1M count=2 2>/dev/null", check=True)
    assert cgroup.read("memory.current") >= 2 << 20
    assert cgroup.read("memory.max") is None
    assert cgroup.read("memory.stat")["shmem"] > 1 << 20  # 5.10 sums it up in batches
    assert cgroup.read("cpu.max") == [None, 100000]
    assert cgroup.read("cpu.stat")["usage_usec"] > 0
    assert cgroup.read("io.stat") == {}
    assert cgroup.read("cgroup.procs") == []
    assert {"cpu", "io", "memory", "pids"} <= set(cgroup.read("cgroup.controllers"))
    assert cgroup.read("cgroup.type") == "domain"
    cgroup.write("memory.high", "32M")
    assert cgroup.read("memory.high") == 32 << 20
    cgroup.write("memory.high", None)
    assert cgroup.read("memory.high") is None
    for kind in ("memory", "cpu", "io"):
        assert cgroup.pressure(kind)["some"]["total"] >= 0
    vm.run(["rm", "/run/file"], check=True)
