"""Whole runs on this host: every fixture, the example, and the four verdicts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tests.vm
from tests.vm.providers.here import LOCAL, outcomes, run_pytest

pytestmark = pytest.mark.usefixtures("this_host")
CATALOGUE = Path(tests.vm.__file__).parent / "test_catalogue.py"
# A test sets it by a command.
_BURST = Path("/proc/sys/kernel/printk_ratelimit_burst")
EXAMPLE = Path(tests.vm.__file__).parents[2] / "examples" / "overlay_umount"

VERDICTS = """
import pytest

def test_passes(vm, sysctl):
    assert vm.run("id -u").stdout == "0\\n"
    assert sysctl["vm.swappiness"] != 19

def test_fails(vm):
    assert vm.run("true").failed

def test_leaks(vm):
    vm.run("mount -t tmpfs left /mnt", check=True)

def test_sets_a_sysctl_by_hand(vm):
    vm.run("echo $((1 + $(cat /proc/sys/kernel/printk_ratelimit_burst))) > "
           "/proc/sys/kernel/printk_ratelimit_burst", check=True)

def test_ends_its_agent(vm):
    vm.run("kill -9 $PPID")

@pytest.mark.kernel_needs("filesystem:nosuchfs")
def test_needs_what_is_not_there(vm):
    raise AssertionError

def test_wants_what_cannot_be(vm, disk_factory):
    disk_factory(power_cut=True)

def test_wants_a_checkpoint(prepare):
    prepare()

def test_loses_its_supervisor(vm):
    import os, signal
    os.kill(vm.machine.pid, signal.SIGKILL)
    vm.run("true")
"""
EXPECTED = {
    "test_passes": "PASSED",
    "test_fails": "FAILED",
    "test_leaks": "FAILED",
    "test_sets_a_sysctl_by_hand": "FAILED",
    "test_ends_its_agent": "FAILED",
    "test_needs_what_is_not_there": "SKIPPED",
    "test_wants_what_cannot_be": "SKIPPED",
    "test_wants_a_checkpoint": "SKIPPED",
    "test_loses_its_supervisor": "ERROR",
}


def test_the_four_verdicts_hold(tmp_path: Path) -> None:
    (tmp_path / "test_verdicts.py").write_text(VERDICTS)
    burst = _BURST.read_text().strip()
    try:
        _, output = run_pytest(tmp_path, tmp_path / "cache", *LOCAL, "-v", "test_verdicts.py")
    finally:
        _BURST.write_text(burst)
    seen = {name: _verdict(output, name) for name in EXPECTED}
    assert seen == EXPECTED, output
    assert "a test ended it" in output
    assert "mount: tmpfs on /mnt" in output
    assert f"sysctl: kernel.printk_ratelimit_burst is {int(burst) + 1}, and was {burst}" in output


def _verdict(output: str, name: str) -> str:
    lines = [line for line in output.splitlines() if f"::{name}[" in line or f"::{name} " in line]
    words = [word for line in lines for word in line.split() if word in set(EXPECTED.values())]
    return words[-1] if words else output  # what is found at teardown is told after the test has passed


def test_every_fixture_works_or_is_skipped_with_its_reason(tmp_path: Path) -> None:
    shutil.copy(CATALOGUE, tmp_path)
    code, output = run_pytest(tmp_path, tmp_path / "cache", *LOCAL, "-rs", CATALOGUE.name)
    assert code == 0, output
    assert int(next(part for part in outcomes(output) if "passed" in part).split()[0]) >= 25
    reasons = [line for line in output.splitlines() if line.startswith("SKIPPED")]
    assert all(": kernel " in line for line in reasons), output


def test_the_example_shows_the_same_on_this_host(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    code, output = run_pytest(
        tmp_path, tmp_path / "cache", *LOCAL, "-k", "not twice", "test_overlay_umount.py"
    )
    assert code == 0, output
    assert set(outcomes(output)) == {"5 passed", "2 deselected", "1 xfailed"}, output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kernelfs-provider=local"], "say --kernelfs-allow-local"),
        ([*LOCAL, "--kernel=5.10"], "5.10"),
    ],
)
def test_what_cannot_run_here_says_so_once_and_is_an_error(
    tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "test_one.py").write_text("def test_one(vm):\n    pass\n")
    code, output = run_pytest(tmp_path, tmp_path / "cache", *options, "test_one.py")
    assert code != 0
    assert said in output
    assert "passed" not in output
    assert "failed" not in outcomes(output)[0]
