"""Limits of cgroups bite, in both versions, and can be lifted."""

from __future__ import annotations

import pytest

from pytest_kernelfs import Cgroup, CgroupFactory, DiskFactory
from tests.vm.inner import until

MIB = 1 << 20
VERSIONS = pytest.mark.parametrize("version", [2, 1], ids=["v2", "v1"])
BURN = "i=0; while :; do i=$((i+1)); done"


def fill(cgroup: Cgroup, size: int) -> int:
    """The exit code of a program that fills so much memory."""
    return cgroup.run(["dd", "if=/dev/zero", "of=/dev/null", f"bs={size}", "count=1"]).rc


@pytest.mark.parametrize(
    "version",
    [
        pytest.param(2, id="v2"),
        pytest.param(1, id="v1", marks=pytest.mark.kernel_needs("cgroup:v1:memory")),
    ],
)
@pytest.mark.dmesg_allow("oom-kill|Out of memory|invoked oom-killer|Memory cgroup out of memory")
def test_memory_and_processes(cgroup_factory: CgroupFactory, version: int) -> None:
    cgroup = cgroup_factory(version=version, memory_max="16M", pids_max=20)
    assert cgroup.read("pids.max") == 20
    assert fill(cgroup, 4 * MIB) == 0
    assert cgroup.events()["memory"]["oom_kill"] == 0
    assert fill(cgroup, 32 * MIB) == -9
    events = cgroup.events()["memory"]
    assert events["oom_kill"] == 1
    assert events["max"] >= 1

    forks = cgroup.run("for i in $(seq 40); do sleep 60 >/dev/null 2>&1 & done")
    assert forks.failed
    assert "fork" in forks.stderr
    assert cgroup.events()["pids"]["max"] >= 1
    assert cgroup.kill() >= 10

    cgroup.limit(memory_max="max", pids_max="max")
    assert cgroup.read("memory.max" if version == 2 else "memory.limit_in_bytes") is None
    assert fill(cgroup, 32 * MIB) == 0


@VERSIONS
def test_processor_time(cgroup_factory: CgroupFactory, version: int) -> None:
    cgroup = cgroup_factory(version=version, cpu_max=0.1)
    cgroup.start(BURN)

    def throttled() -> float:
        stat = cgroup.read("cpu.stat")
        return float(stat["throttled_usec"] / 1e6 if version == 2 else stat["throttled_time"] / 1e9)

    until(lambda: throttled() > 0.2, "waiting for the processor")
    assert cgroup.read("cpu.stat")["nr_throttled"] > 0
    # What is throttled ends only in its turn.
    cgroup.limit(cpu_max="max")
    assert cgroup.kill() == 1

    free = cgroup_factory(version=version, controllers=["cpu"])
    # Longer than the other may run at a time.
    free.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done", check=True)
    assert free.read("cpu.stat")["nr_throttled"] == 0


@VERSIONS
def test_writes_to_a_disk(cgroup_factory: CgroupFactory, disk_factory: DiskFactory, version: int) -> None:
    disk = disk_factory(size="64M")
    cgroup = cgroup_factory(version=version, io_max={disk: {"wbps": "2M"}})
    write = ["dd", "if=/dev/zero", f"of={disk.path}", "oflag=direct", "bs=256k", "count=12"]
    limited = cgroup.run(write, check=True).duration
    assert limited > 1.2
    if version == 2:
        (limits,) = cgroup.read("io.max").values()
        assert limits == {"rbps": None, "wbps": 2 * MIB, "riops": None, "wiops": None}
        (done,) = cgroup.read("io.stat").values()
        assert done["wbytes"] == 3 * MIB
    cgroup.limit(io_max={disk: {"wbps": "max"}})
    # A busy host makes any single one slow, the limit would make all of them.
    until(lambda: cgroup.run(write, check=True).duration < limited / 2, "a write without a limit")
