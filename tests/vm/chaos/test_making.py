"""The moments of a template's birth: ended, wanted by several at once, without room."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.inner import InnerRun, until

pytestmark = [pytest.mark.vm, pytest.mark.kernel(">=6.1,<6.2")]

Boots = Callable[[], int]

_LEFT = 64 << 20
_STEP = 8 << 20

TWO = """
import pytest

@pytest.mark.parametrize("number", range(2))
def test_two(vm, number):
    assert vm.run(["true"]).succeeded
"""

PREPARED = """
import pytest

@pytest.fixture(scope="module")
def checkpoint(prepare):
    machine = prepare()
    machine.vm.run("touch /prepared", check=True)
    return machine.checkpoint()

def test_prepared(vm):
    assert vm.run(["test", "-e", "/prepared"]).succeeded
"""


def _being_made(inner: InnerRun) -> list[Path]:
    return list(inner.cache.glob("templates/.*/memory"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_a_run_that_is_ended_while_it_makes_one(inner: InnerRun, how: signal.Signals) -> None:
    inner.write(TWO)
    process = inner.start()
    until(lambda: _being_made(inner) and inner.machines(), "the start of a template")
    process.send_signal(how)
    process.communicate(timeout=300)
    until(lambda: not inner.machines(), "the end of the machine")
    assert inner.templates() == []
    if how is signal.SIGINT:
        assert inner.leftovers() == []


def test_four_workers_and_another_run_boot_once(inner: InnerRun, boots: Boots) -> None:
    inner.write(TWO)
    runs = [inner.start("-n", "2"), inner.start("-n", "2"), inner.start()]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], outputs
    assert boots() == 1
    assert len(inner.templates()) == 1
    assert inner.leftovers() == []


def test_one_that_waits_takes_over_from_one_that_is_killed(inner: InnerRun, boots: Boots) -> None:
    inner.write(TWO)
    first = inner.start()
    until(lambda: _being_made(inner) and inner.machines(), "the start of a template")
    second = inner.start()
    first.kill()
    first.communicate(timeout=300)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    assert "2 passed" in output
    assert boots() == 2
    assert len(inner.templates()) == 1
    assert inner.leftovers() == []


def test_a_damaged_one_is_made_anew_for_a_checkpoint(inner: InnerRun) -> None:
    inner.write(PREPARED)
    assert inner.run()[0] == 0
    (template,) = inner.templates()
    os.truncate(template / "memory", 1 << 20)
    code, output = inner.run()
    assert code == 0, output


@pytest.fixture
def small_disk(inner: InnerRun) -> Iterator[Path]:
    """A disk with just enough room for a template, where the kernels of ``inner`` can be used from."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system takes root")
    folder = inner.folder / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=560M", "tmpfs", str(folder)], check=True)
    for kind in inner.cache.iterdir():
        (folder / kind.name).mkdir()
        for entry in kind.iterdir():
            (folder / kind.name / entry.name).symlink_to(entry)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(disk: Path) -> None:
    """Leave less on a disk than any boot takes; in steps, since a machine takes its own part meanwhile."""
    size = 0
    with (disk / "filler").open("wb") as file:
        while shutil.disk_usage(disk).free > _LEFT:
            os.posix_fallocate(file.fileno(), size, _STEP)
            size += _STEP


def test_a_disk_that_fills_while_one_is_made(inner: InnerRun, small_disk: Path, boots: Boots) -> None:
    inner.write(TWO)
    process = inner.start(f"--kernelfs-cache={small_disk}")
    until(lambda: list(small_disk.glob("templates/.*/memory")), "the start of a template")
    _fill(small_disk)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "2 passed in" in output
    assert "filled up while the kernel booted" in output
    assert boots() == 3, "one that failed, and one for each test"
    assert list((small_disk / "templates").iterdir()) == []
