"""However a run ends, no machine outlives it, and the next run tidies up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.vm.inner import InnerRun, until

pytestmark = pytest.mark.kernel(">=6.1,<6.2")

LONG = "def test_long(vm):\n    open('started', 'w').close()\n    vm.run('sleep 600', timeout=600)\n"
TRIVIAL = "def test_trivial(vm):\n    assert vm.run(['true']).succeeded\n"


def _tidy_after(inner: InnerRun) -> None:
    inner.write(TRIVIAL)
    code, output = inner.run()
    assert code == 0, output
    assert inner.leftovers() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill", "int", "term"])
def test_a_run_that_is_ended_in_a_test(inner: InnerRun, how: signal.Signals) -> None:
    inner.write(LONG)
    process = inner.start()
    until((inner.folder / "started").exists, "the start of the test")
    assert inner.machines()
    os.kill(process.pid, how)
    process.communicate(timeout=300)
    until(lambda: not inner.machines(), "the end of the machines")
    _tidy_after(inner)


def test_a_run_that_is_killed_while_it_makes_a_template(inner: InnerRun) -> None:
    inner.write(TRIVIAL)
    process = inner.start()
    until(inner.machines, "the start of a machine")
    assert not inner.templates()
    process.kill()
    process.communicate(timeout=300)
    until(lambda: not inner.machines(), "the end of the machine")
    _tidy_after(inner)
    assert len(inner.templates()) == 1


def test_an_xdist_worker_that_is_killed(inner: InnerRun) -> None:
    inner.write(
        "import os, pytest\n\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "def test_kill(vm, number):\n    if number == 0:\n        os.kill(os.getpid(), 9)\n"
    )
    code, output = inner.run("-n", "2")
    assert code == 1, output
    assert "3 passed" in output
    until(lambda: not inner.machines(), "the end of the machines")
    _tidy_after(inner)


PREPARED = """
import pytest

class TestUnprepared:
    @pytest.fixture(params=range(2))
    def checkpoint(self, prepare):
        prepare()
        raise ValueError("no such file")

    def test_error(self, vm): pass

@pytest.fixture(scope="module")
def checkpoint(prepare):
    machine = prepare()
    return machine.checkpoint(disk=machine.disk_factory(size="64M", power_cut=True))

def test_fork(vm):
    assert vm.run(["test", "-b", vm.kept["disk"].path]).succeeded
"""


def test_a_run_with_checkpoints_leaves_nothing_and_those_that_fail_hold_no_room(inner: InnerRun) -> None:
    inner.write(PREPARED)
    code, output = inner.run("--kernelfs-max-vms", "1")
    assert code == 1, output
    assert "1 passed, 2 errors" in output
    assert output.count("ValueError: no such file") >= 2, output
    assert inner.leftovers() == []
    assert not list(Path(inner.cache / "scratch").iterdir())
