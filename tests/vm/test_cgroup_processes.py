"""Processes of cgroups are started in them, frozen, thawed, moved and killed."""

from __future__ import annotations

import os
import time

import pytest

from pytest_kernelfs import VM, CgroupFactory
from pytest_kernelfs.errors import GuestCommandError

VERSIONS = pytest.mark.parametrize("version", [2, 1], ids=["v2", "v1"])
COUNT = 'i=0; while :; do i=$((i+1)); echo $i > "$0"; done'
PATIENCE_S = 120.0
# Twenty shells that fork all the time.
BOMB = "for i in $(seq 20); do (while :; do (:); done) & done; wait"


def wait_for_count(vm: VM, path: str, above: int) -> int:
    """The number in a file, once it is above another."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        text = vm.run(["cat", path]).stdout.strip()
        if text and int(text) > above:
            return int(text)
    raise AssertionError(f"{path} did not get above {above}")


@VERSIONS
def test_frozen_they_stop_and_thawed_they_go_on(vm: VM, cgroup_factory: CgroupFactory, version: int) -> None:
    cgroup = cgroup_factory(version=version, controllers=["pids"])
    process = cgroup.start(["sh", "-c", COUNT, "/run/count"])
    assert cgroup.processes() == [process.pid]
    wait_for_count(vm, "/run/count", 0)
    cgroup.freeze()
    frozen = vm.get("/run/count")
    vm.run(["sleep", "0.3"])
    assert vm.get("/run/count") == frozen
    cgroup.thaw()
    wait_for_count(vm, "/run/count", int(frozen or 0))
    assert process.running
    # A command is inside before it begins.
    assert f"/{cgroup.name}" in cgroup.run(["cat", "/proc/self/cgroup"]).stdout

    cgroup.freeze()
    assert cgroup.kill() == 1
    assert process.wait().rc == -9
    assert cgroup.wait_until_empty() >= 0


@VERSIONS
def test_a_fork_bomb_is_killed(vm: VM, cgroup_factory: CgroupFactory, version: int) -> None:
    cgroup = cgroup_factory(version=version, controllers=["pids"])
    bomb = cgroup.start(BOMB)
    deadline = time.monotonic() + PATIENCE_S
    while len(cgroup.processes()) < 20:
        assert time.monotonic() < deadline
    assert cgroup.kill(timeout=60) >= 10
    assert cgroup.processes() == []
    assert not bomb.running
    done = cgroup.start("echo out; echo err >&2; exit 3").wait()
    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    cgroup.start(["sleep", "60"])
    with pytest.raises(GuestCommandError, match=r"still holds processes after 0.1 s.*sleep"):
        cgroup.wait_until_empty(0.1)


def _pid() -> int:
    return os.getpid()


def test_cgroups_within_cgroups(vm: VM, cgroup_factory: CgroupFactory) -> None:
    outer = cgroup_factory(controllers=["memory", "pids"])
    process = outer.start(["sleep", "600"])
    # With cpu and pids before it, the kernel's refusal of memory is another.
    for controllers in (["memory", "pids"], ["pids", "cpu", "memory"]):
        with pytest.raises(
            GuestCommandError, match=rf"holds processes \({process.pid} \(sleep.*move_processes=True"
        ):
            outer.create("child", controllers=controllers)
    assert outer.read("cgroup.subtree_control") == []
    with pytest.raises(GuestCommandError, match="serves this machine's calls"):
        outer.add(vm.call(_pid))
    child = outer.create("child", move_processes=True, pids_max=7, cpu_max=0.5)
    assert child.path == f"{outer.path}/child"
    assert child.processes() == outer.processes(below=True) == [process.pid]
    assert outer.processes() == []
    assert child.read("pids.max") == 7
    assert child.read("cpu.max") == [50000, 100000]
    assert set(outer.read("cgroup.subtree_control")) == {"memory", "pids", "cpu"}
    with pytest.raises(GuestCommandError, match=r"no process can enter the cgroup .*gives controllers"):
        outer.run(["true"])
    grandchild = child.create("deep", controllers=[])
    grandchild.add(process.pid)
    assert grandchild.read("cgroup.procs") == [process.pid]
    assert outer.events()["cgroup"]["populated"] == 1
    assert outer.kill() == 1
