"""Who is killed in the middle of tests on this host leaves nothing: at once, or when the next one tidies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError, KernelMisbehaved
from pytest_kernelfs.guest import tenant
from pytest_kernelfs.machines.local.provider import LocalProvider
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.vm import VM
from tests.vm.providers.here import LOCAL, Traces, processes_with, start_pytest, until

pytestmark = pytest.mark.usefixtures("this_host")
# Its processes are told by that, from those of others and of earlier runs.
SLEEP = f"47{os.getpid():08d}.16"
# Disks on one another, what is to be set back, processes; and then it waits to be killed.
TEST = f"""
import time
from pathlib import Path

def test_much(vm, disk_factory, loop_device_factory, filesystem_factory, sysctl, netns_pair):
    slow = filesystem_factory("ext4", on=disk_factory(size="128M", write_bps="2M", cache="writethrough"))
    upper = filesystem_factory("ext4", on=loop_device_factory(on=slow, size="64M"))
    upper.write("dirty", "16M")
    sysctl["vm.swappiness"] = 17 if sysctl["vm.swappiness"] != 17 else 18
    vm.run("mkdir -p /sys/fs/cgroup/pids/by-hand /sys/fs/cgroup/by-hand; true")
    vm.run("setsid sleep {SLEEP} > /dev/null 2>&1 &", check=True)
    Path("{{marker}}").write_text(str(vm.machine.pid))
    time.sleep(600)
"""

Killed = Callable[[], tuple[subprocess.Popen[str], Traces]]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Killed]:
    """Starts a whole run in the middle of a test; gives it, and what its supervisor noted."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Traces]:
        marker = tmp_path / "supervisor"
        (tmp_path / "test_much.py").write_text(TEST.replace("{marker}", str(marker)))
        run = start_pytest(tmp_path, tmp_path / "cache", *LOCAL, "test_much.py")
        started.append(run)
        until("the test", lambda: run.poll() is not None or (marker.exists() and marker.read_text()))
        assert run.poll() is None, run.communicate()[0]
        return run, Traces.of(int(marker.read_text()))

    yield start
    for run in started:
        run.kill()
        run.communicate()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TenantMachine]:
    provider = LocalProvider(Settings(tmp_path / "cache"), allowed=True)
    machine = provider.start(provider.own_kernel(), MachineSpec(1 << 30, 1))
    assert isinstance(machine, TenantMachine)
    yield machine
    machine.destroy()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing(busy: Killed, number: int) -> None:
    run, traces = busy()
    assert {"sysctl", "throttle", "file"} <= {entry[0] for entry in traces.entries}
    until("its process", lambda: len(processes_with(SLEEP)) == 1)
    assert len(traces.remains()) > 5
    run.send_signal(number)
    run.wait(300)
    traces.assert_nothing_remains()
    until("the end of its processes", lambda: not processes_with(SLEEP))


def test_a_supervisor_that_is_told_to_end_leaves_nothing(busy: Killed) -> None:
    _, traces = busy()
    os.kill(traces.supervisor, signal.SIGTERM)
    traces.assert_nothing_remains()


def test_what_a_killed_supervisor_leaves_the_next_run_removes(busy: Killed, machine: TenantMachine) -> None:
    machine.destroy()
    _, traces = busy()
    os.kill(traces.supervisor, signal.SIGKILL)
    until("the end of its processes", lambda: not processes_with(SLEEP))
    assert len(traces.remains()) > 5
    said = tenant.collect()
    assert any("sysctl vm.swappiness" in line for line in said)
    assert sum("loop device" in line for line in said) == 2
    traces.assert_nothing_remains()
    assert tenant.collect() == []


def test_gc_removes_it_too_and_nothing_that_is_in_use(busy: Killed, tmp_path: Path) -> None:
    _, traces = busy()

    def gc() -> str:
        command = [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(tmp_path / "cache"), "gc"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout

    there = len(traces.remains())
    assert "on this host" not in gc()
    assert len(traces.remains()) == there
    os.kill(traces.supervisor, signal.SIGKILL)
    until("the end of its processes", lambda: not processes_with(SLEEP))
    assert "undid on this host: loop device /dev/loop" in gc()
    traces.assert_nothing_remains()


def test_an_agent_that_a_test_killed_is_the_kernels_or_the_tests_fault(machine: TenantMachine) -> None:
    traces = Traces.of(machine.pid)
    with pytest.raises(KernelMisbehaved, match="agent on this host was ended by SIGKILL"):
        VM(machine).run("kill -9 $PPID")
    assert not machine.alive
    machine.destroy()
    traces.assert_nothing_remains()


def test_a_supervisor_that_was_killed_is_ours(machine: TenantMachine) -> None:
    traces = Traces.of(machine.pid)
    os.kill(machine.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match=r"this host was lost during the test: .* exit code -9"):
        VM(machine).run("true")
    machine.destroy()
    traces.assert_nothing_remains()
