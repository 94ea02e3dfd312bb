"""A provider of a project's own for a machine that runs already: here a cell of this host."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestTimeout, InfrastructureError
from pytest_kernelfs.guest import commands
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.tenant.access import Tenancy, Unreachable
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.tenant.provider import CommandProvider
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.news import heard_by
from tests.vm.providers.here import Traces, outcomes, processes_with, run_pytest, until

pytestmark = pytest.mark.usefixtures("this_host")
SPEC = MachineSpec(1 << 30, 1)
# Processes are told by that, from those of others and of earlier runs.
SLEEP = f"47{os.getpid():08d}"
# Commands come to a place where what is mounted is not seen by others: all else is the host's.
CELL = ("unshare", "--mount", "--")
CONFTEST = f"""
from pytest_kernelfs import CommandProvider

def pytest_kernelfs_providers(config):
    return {{"cell": lambda settings: CommandProvider(settings, name="cell", prefix={list(CELL)!r})}}
"""
TESTS = """
import pytest

def test_slow_disk(vm, disk_factory, xfs_factory, overlay_factory, assert_umount_under):
    upper = xfs_factory(on=disk_factory(size="1G", write_bps="2M"))
    overlay = overlay_factory(on=upper)
    upper.sync()
    overlay.write("file", "8M")
    assert overlay.path.startswith("/run/kernelfs/mnt/")
    assert assert_umount_under(120.0).seconds[0] > 0.6

def test_tracing(tracing):
    with tracing.events("sched:sched_process_fork") as trace:
        pass

def test_leaks(vm):
    vm.run("mkdir -p /run/kernelfs/mnt/x && mount -t tmpfs left /run/kernelfs/mnt/x", check=True)

def test_is_after_the_leak(vm):
    assert "left /run/kernelfs" not in vm.run("cat /proc/mounts").stdout
"""


class Cell(CommandProvider):
    """Tests on this host, as on a machine that is not ours."""

    def __init__(
        self, cache: Path, prefix: Sequence[str] = CELL, boot_timeout: float = 60.0, **options: Any
    ) -> None:
        settings = Settings(cache, boot_timeout=boot_timeout)
        super().__init__(settings, name="cell", prefix=prefix, label="the cell", **options)

    def enter(self) -> TenantMachine:
        machine = self.start(self.own_kernel(), SPEC)
        assert isinstance(machine, TenantMachine)
        return machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[TenantMachine]:
    machine = Cell(tmp_path).enter()
    yield machine
    machine.destroy()


def test_a_provider_in_a_conftest_runs_tests(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_cell.py").write_text(TESTS)
    _, output = run_pytest(tmp_path, tmp_path / "cache", "--kernelfs-provider=cell", "test_cell.py")
    assert sorted(outcomes(output)) == ["1 failed", "4 passed"], output
    assert "mount: tmpfs on /run/kernelfs/mnt/x" in output


IN_TURNS = """
import pathlib

import pytest

@pytest.mark.parametrize("turn", [1, 2])
def test_it(vm, turn):
    with (pathlib.Path(__file__).parent / "log").open("a") as log:
        print("in", file=log, flush=True)
        vm.run("sleep 1", check=True)
        print("out", file=log)
"""


def test_workers_of_one_run_take_turns_however_long_they_take(tmp_path: Path) -> None:
    """Those of another run would not be waited for at all."""
    pytest.importorskip("xdist")
    hasty = CONFTEST.replace('name="cell"', 'name="cell", tenancy=Tenancy(wait=0)')
    (tmp_path / "conftest.py").write_text(f"from pytest_kernelfs import Tenancy\n{hasty}")
    (tmp_path / "test_turns.py").write_text(IN_TURNS)
    options = ("--kernelfs-provider=cell", "-n2", "test_turns.py")
    _, output = run_pytest(tmp_path, tmp_path / "cache", *options)
    assert outcomes(output) == ["2 passed"], output
    assert (tmp_path / "log").read_text().split() == ["in", "out", "in", "out"]


def test_all_is_as_before_when_it_is_left(machine: TenantMachine) -> None:
    vm = VM(machine)
    traces = Traces.of(machine.pid)
    vm.run("mkdir /run/kernelfs/mnt/a && mount -t tmpfs a /run/kernelfs/mnt/a", check=True)
    vm.run("truncate -s 8M /run/kernelfs/mnt/a/f && losetup -f /run/kernelfs/mnt/a/f", check=True)
    vm.run(f"setsid sleep {SLEEP}.17 > /dev/null 2>&1 &", check=True)
    until("its process", lambda: processes_with(f"{SLEEP}.17"))
    vm.run("ip netns list; ls -la /mnt", check=True)
    machine.destroy()
    told = " ".join(machine.leftovers)
    assert "mount on /run/kernelfs/mnt/a" in told
    assert "loop device" in told
    assert not processes_with(f"{SLEEP}.17")
    traces.assert_nothing_remains()


def test_what_a_killed_supervisor_left_is_taken_down_by_the_next(tmp_path: Path) -> None:
    first = Cell(tmp_path).enter()
    vm = VM(first)
    vm.run(f"setsid sleep {SLEEP}.18 > /dev/null 2>&1 &", check=True)
    until("its process", lambda: processes_with(f"{SLEEP}.18"))
    traces = Traces.of(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    until("its end", lambda: not first.alive)
    assert processes_with(f"{SLEEP}.18"), "there was nobody to end it"
    heard: list[str] = []
    with heard_by(heard.append):
        first.destroy()
    assert "was left before our supervisor there could say that it is tidy" in heard[0]
    second = Cell(tmp_path).enter()
    second.destroy()
    assert "from a run before: processes in the tests' cgroups" in second.leftovers
    assert not processes_with(f"{SLEEP}.18")
    traces.assert_nothing_remains()


def test_one_at_a_time(machine: TenantMachine, tmp_path: Path) -> None:
    hasty = Cell(tmp_path, tenancy=Tenancy(wait=0.2))
    with pytest.raises(InfrastructureError, match=rf"another run work there \(process {machine.pid}\)"):
        hasty.enter()
    patient = Cell(tmp_path, tenancy=Tenancy(wait=300))
    leave = threading.Timer(1.0, machine.destroy)
    start = time.monotonic()
    leave.start()
    next_machine = patient.enter()
    assert time.monotonic() - start > 0.9
    leave.join()
    assert next_machine.call(commands.run, "echo here", 10, timeout=20)["stdout"] == b"here\n"
    next_machine.destroy()


def test_a_login_that_prints_and_a_shell_that_splits_words(tmp_path: Path) -> None:
    words = ["sh", "-c", 'echo "Welcome!"; echo kernelfs; eval "$*"', "sh"]
    machine = Cell(tmp_path, prefix=[*CELL, *words], shell=True).enter()
    assert machine.call(commands.run, "echo here", 10, timeout=20)["stdout"] == b"here\n"
    machine.destroy()


@pytest.mark.parametrize(
    ("prefix", "options", "said"),
    [
        (["/nowhere/at/all"], {}, "cannot be reached: /nowhere/at/all cannot be started: No such file"),
        (
            ["sh", "-c", "echo no such container >&2; exit 3"],
            {},
            "code 3; it printed:\nno such container",
        ),
        (CELL, {"python": "/nowhere/python3"}, "did not start /nowhere/python3 as root there"),
    ],
)
def test_a_machine_that_cannot_be_reached_says_why(
    tmp_path: Path, prefix: list[str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InfrastructureError) as caught:
        Cell(tmp_path, prefix=prefix, **options).own_kernel()
    assert said in str(caught.value)


def test_a_command_that_does_not_lead_to_root_is_told(tmp_path: Path) -> None:
    # The one of this run may lie in a home, where others cannot start it.
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("this host has no python3 that everybody can start")
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    with pytest.raises(InfrastructureError, match="tests need root there, and this is user 65534"):
        Cell(tmp_path, prefix=nobody, python=python).own_kernel()


def test_a_machine_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    cell = Cell(tmp_path, prefix=["sh", "-c", "exec sleep 60", "sh"], boot_timeout=2.0)
    start = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer within 2 s"):
        cell.own_kernel()
    assert time.monotonic() - start < 50


def test_a_call_that_hangs_ends_in_time_and_leaves_nothing(machine: TenantMachine) -> None:
    vm = VM(machine)
    traces = Traces.of(machine.pid)
    with pytest.raises(GuestTimeout):
        vm.guest(commands.run, ["sleep", f"{SLEEP}.19"], 600.0, timeout=1.0)
    assert not vm.usable
    machine.destroy()
    until("its end", lambda: not processes_with(f"{SLEEP}.19"))
    traces.assert_nothing_remains()


def test_old_code_is_sent_as_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.MAGIC_NUMBER", b"other")
    assert Cell(tmp_path, python=sys.executable).own_kernel().image is None
