"""``kernelfs gc`` takes what nobody owns, and nothing that somebody uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.machines.qemu import template
from tests.vm.inner import InnerRun, until

pytestmark = [pytest.mark.vm, pytest.mark.kernel(">=6.1,<6.2")]

Gc = Callable[..., str]

# Its checkpoint and its disk lie in the scratch folder.
LARGE = """
import pytest

@pytest.fixture(scope="module")
def checkpoint(prepare):
    machine = prepare()
    return machine.checkpoint(disk=machine.disk_factory(size="64M"))

def test_large(vm, disk_factory):
    disk_factory(size="64M")
    open("started", "w").close()
    vm.run("sleep 600", timeout=600)
"""

# Tests that share a machine get no spare ahead, so the second class needs the template again.
GOES_ON = """
import os, pytest, time

pytestmark = pytest.mark.isolation("class")

class TestOne:
    def test_waits(self, vm, disk_factory):
        disk = disk_factory(size="64M")
        open("started", "w").close()
        deadline = time.monotonic() + 300
        while not os.path.exists("go"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        vm.run(["dd", "if=/dev/zero", f"of={disk.path}", "bs=1M", "count=8", "oflag=direct"], check=True)

class TestTwo:
    def test_next(self, vm):
        assert vm.run(["true"]).succeeded
"""

TRIVIAL = "def test_trivial(vm):\n    assert vm.run(['true']).succeeded\n"


def _scratch(inner: InnerRun) -> list[Path]:
    return list((inner.cache / "scratch").iterdir())


def test_what_a_killed_run_left(inner: InnerRun, gc: Gc) -> None:
    inner.write(LARGE)
    process = inner.start()
    until((inner.folder / "started").exists, "the start of the test")
    process.kill()
    process.communicate(timeout=300)
    until(lambda: not inner.machines(), "the end of the machines")
    assert _scratch(inner)
    assert inner.leftovers()
    said = gc()
    assert _scratch(inner) == []
    assert inner.leftovers() == []
    assert len(inner.templates()) == 1, "it is still good"
    assert said.count("removed") >= 3, said
    assert gc() == "nothing to remove\n"


def test_a_run_goes_on_that_gc_ran_beside(inner: InnerRun, gc: Gc) -> None:
    inner.write(GOES_ON)
    process = inner.start()
    until((inner.folder / "started").exists, "the start of the test")
    machines, scratch = inner.machines(), _scratch(inner)
    said = gc("--cache-size", "0")
    assert inner.machines() == machines
    assert _scratch(inner) == scratch
    assert inner.templates() == [], said
    (inner.folder / "go").touch()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "2 passed" in output
    assert inner.leftovers() == []


def test_templates_in_use_stay(inner: InnerRun, gc: Gc) -> None:
    inner.write(TRIVIAL)
    assert inner.run()[0] == 0
    (folder,) = inner.templates()
    with template.in_use(folder):
        gc("--cache-size", "0")
        assert inner.templates() == [folder]
    gc("--cache-size", "0")
    assert inner.templates() == []
    assert list((inner.cache / "kernels").iterdir()), "kernels were fetched on purpose"


def test_a_template_that_was_never_finished(inner: InnerRun, gc: Gc) -> None:
    inner.write(TRIVIAL)
    process = inner.start()
    until(lambda: list(inner.cache.glob("templates/.*/memory")), "the start of a template")
    process.kill()
    process.communicate(timeout=300)
    until(lambda: not inner.machines(), "the end of the machine")
    assert "never finished" in gc()
    assert list((inner.cache / "templates").iterdir()) == []
    assert inner.leftovers() == []
