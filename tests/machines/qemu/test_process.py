"""A QEMU process ends at once, and never outlives the test run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.lease import ProcessId
from pytest_kernelfs.machines.qemu.process import QemuProcess

OWNER = """
import sys
from pathlib import Path
from pytest_kernelfs.machines.qemu.process import QemuProcess
process = QemuProcess(["sleep", "600"], Path(sys.argv[1]))
print(process.pid, flush=True)
sys.stdin.read()
"""

Start = Callable[..., QemuProcess]


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of a machine."""
    made = lease.make_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start a program in the place of QEMU."""
    started: list[QemuProcess] = []

    def run(*command: str) -> QemuProcess:
        started.append(QemuProcess(list(command), folder))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def test_a_process_runs_until_it_is_killed(start: Start) -> None:
    process = start("sleep", "600")
    assert not process.ended()
    process.kill()
    assert process.ended()


def test_a_process_may_be_killed_twice(start: Start) -> None:
    process = start("sleep", "600")
    process.kill()
    process.kill()
    assert process.complaint() == "exit code -9"


def test_a_process_that_ends_by_itself_is_noticed(start: Start) -> None:
    assert start("true").ended(120)


def test_what_it_complained_about_is_told_with_its_exit_code(start: Start) -> None:
    process = start("sh", "-c", "echo no such machine >&2; exit 3")
    process.ended(120)
    assert process.complaint() == "exit code 3: no such machine"


def test_its_folder_is_leased_to_it(start: Start, folder: Path) -> None:
    process = start("sleep", "600")
    ((_, owner, machine),) = (entry for entry in lease.machines() if entry[0] == folder)
    assert owner == ProcessId.of(os.getpid())
    assert machine == ProcessId.of(process.pid)


def test_one_whose_lease_cannot_be_written_does_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def refuse(_: Path, pid: int) -> None:
        started.append(pid)
        raise InfrastructureError("the disk is full")

    monkeypatch.setattr(lease, "write", refuse)
    with pytest.raises(InfrastructureError, match="the disk is full"):
        QemuProcess(["sleep", "600"], folder)
    assert not Path(f"/proc/{started[0]}").exists(), "not even as a zombie"


def test_it_does_not_hear_the_terminals_signals(start: Start) -> None:
    assert os.getsid(start("sleep", "600").pid) != os.getsid(0)


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        # Not before it runs is it bound to its owner.
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        machine = ProcessId.of(pid)
        assert machine.alive
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until(lambda: not machine.alive)


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        os.sched_yield()
