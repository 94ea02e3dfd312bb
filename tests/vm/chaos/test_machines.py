"""Machines that end in every way, and what the tests after them see of it: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.inner import InnerRun, until

pytestmark = [pytest.mark.vm, pytest.mark.kernel(">=6.1,<6.2")]

# An innocent after each: it may get a spare that was made while the other went down.
DEATHS = """
import pytest

DEATHS = {
    "panic": "echo c > /proc/sysrq-trigger",
    "init": "kill -INT 1",
    "poweroff": "echo o > /proc/sysrq-trigger",
    "reboot": "echo b > /proc/sysrq-trigger",
    "agent": "kill -9 $PPID",
}
CASES = [(kind, name) for name in DEATHS for kind in ("dies", "lives")]

@pytest.mark.parametrize(("kind", "name"), CASES, ids=["-".join(case) for case in CASES])
def test_it(vm, kind, name):
    assert vm.run("test ! -e /was-here && touch /was-here").succeeded
    if kind == "dies":
        vm.run(DEATHS[name] + "; sleep 100")
"""

KILLED_FROM_OUTSIDE = """
import os, pytest, signal

@pytest.mark.parametrize("number", range(3))
def test_it(vm, number):
    if number == 1:
        os.kill(vm.machine.pid, signal.SIGKILL)
    assert vm.run(["true"]).succeeded
"""

WORKERS = """
import os, pytest

@pytest.mark.parametrize("number", range(4))
def test_it(vm, number):
    if number == 0:
        with open("worker", "w") as file:
            file.write(str(os.getpid()))
        os.rename("worker", "started")
        vm.run("sleep 600", timeout=600)
    assert vm.run(["true"]).succeeded
"""


def _words(command_line: Path) -> bytes:
    """Empty for a process that has ended, even if nobody has asked for its exit code."""
    try:
        return command_line.read_bytes()
    except OSError:
        return b""


def test_every_death_is_told_and_felt_by_nobody_else(inner: InnerRun) -> None:
    inner.write(DEATHS)
    code, output = inner.run("-rA")
    assert code == 1, output
    assert "5 failed, 5 passed" in output
    assert sum("PASSED" in line and "lives-" in line for line in output.splitlines()) >= 5, output
    assert inner.leftovers() == []


def test_a_qemu_that_is_killed_is_an_error_of_one_test(inner: InnerRun) -> None:
    inner.write(KILLED_FROM_OUTSIDE)
    code, output = inner.run()
    assert code == 1, output
    assert "2 passed, 1 error" in output
    assert inner.leftovers() == []


def test_a_controller_that_is_killed_takes_its_workers_and_machines_along(inner: InnerRun) -> None:
    inner.write(WORKERS)
    process = inner.start("-n", "2")
    until((inner.folder / "started").exists, "the start of the test")
    worker = Path("/proc", (inner.folder / "started").read_text(), "cmdline")
    process.kill()
    until(lambda: not inner.machines(), "the end of the machines")
    until(lambda: not _words(worker), "the end of the worker")
    process.communicate(timeout=300)
