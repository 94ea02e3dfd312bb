"""Whole runs on a machine that is reached over ssh."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.machines.ssh.transport import SshTransport
from tests.vm.inner import InnerRun, until
from tests.vm.providers.sshd import SshdMachine

_PROJECT = Path(__file__).parents[3]

# What a run may leave on the machine: compared before and after.
_TRACES = """
cat /proc/self/mountinfo | cut -d' ' -f5-; losetup -a; ls /sys/block | grep dm-; find /sys/fs/cgroup -type d;
ls /tmp /run /run/kernelfs-tenant /run/netns /mnt /var/tmp /dev/shm 2>/dev/null;
sysctl vm.dirty_bytes vm.dirty_background_bytes vm.swappiness;
ps --ppid 2 -p 2 --deselect -o comm= | grep -vE '^(ps|sort|sh|sshd|sleep|grep)' | sort
"""


@pytest.fixture
def options(sshd_machine: SshdMachine) -> list[str]:
    return _options(sshd_machine)


def _options(machine: SshdMachine, name: str = "notours") -> list[str]:
    return [
        "--kernelfs-provider=ssh",
        f"--kernelfs-ssh={name}",
        f"--kernelfs-ssh-config={machine.config}",
    ]


@pytest.fixture
def there(sshd_machine: SshdMachine) -> Iterator[Callable[[str], str]]:
    """Runs a command on the machine; gives what it printed."""
    transport = SshTransport("notours", config_file=sshd_machine.config)
    yield lambda command: transport.run(["sh", "-c", command], timeout=300).stdout
    transport.close()


@pytest.fixture
def traces(there: Callable[[str], str]) -> Callable[[], list[str]]:
    """Everything on the machine that a run could have left there.

    Two places are made once and stay: of the lock that keeps runs apart, and of ``ip netns``.
    """
    there("mkdir -p /run/kernelfs-tenant; touch /run/kernelfs-tenant/lock; ip netns add a; ip netns delete a")
    return lambda: there(_TRACES).splitlines()


OWN = """
import pytest

def test_passes(vm):
    assert vm.run("uname -r", check=True).stdout.strip() == vm.kernel.release

@pytest.mark.isolation("test")
def test_has_an_agent_of_its_own(vm):
    assert vm.run("id -u", check=True).stdout == "0\\n"

def test_fails(vm):
    assert vm.run("false").succeeded

def test_leaks(vm):
    vm.run("mkdir -p /tmp/leak && mount -t tmpfs leak /tmp/leak", check=True)
    vm.run("truncate -s 1M /tmp/leaked && losetup -f /tmp/leaked", check=True)

def test_hangs(vm):
    vm.run("sleep 100", timeout=0.5)

@pytest.mark.kernel_needs("module:no_such_module")
def test_needs_what_is_not_there(vm):
    pass

def test_wants_what_ssh_cannot(vm):
    vm.power_cut()

def test_is_wrong(vm):
    vm.put("/no/such/file", "/tmp/x")

def test_moves_files(vm, tmp_path):
    content = bytes(range(256)) * 9000
    vm.put(content, "/tmp/content")
    try:
        assert vm.get("/tmp/content", tmp_path / "back") == content
        assert (tmp_path / "back").read_bytes() == content
    finally:
        vm.run("rm /tmp/content", check=True)

def test_calls_functions(vm):
    assert vm.call(add, 2, 3) == 5

def add(a, b):
    return a + b
"""
_VERDICTS = {
    "passes": "PASSED",
    "has_an_agent_of_its_own": "PASSED",
    "fails": "FAILED",
    "leaks": "FAILED",
    "hangs": "FAILED",
    "is_wrong": "ERROR",
    "moves_files": "PASSED",
    "calls_functions": "PASSED",
}
# The same on every machine that has the kernel's modules, or long.
_LEFT_OUT = (
    *("null_blk", "zram", "brd", "scsi_debug", "btrfs", "ext4", "module_parameter", "dynamic_debug"),
    *("hung_task", "serial", "twice", "waits_for_writeback", "under_a_second"),
)
_NOT_DONE = ("no module no_such_module", "cannot cut the power of its machines")


def test_all_that_other_machines_can(
    inner: InnerRun, options: list[str], traces: Callable[[], list[str]], there: Callable[[str], str]
) -> None:
    """The verdicts, and of the catalogue and the example what depends on how a machine is reached."""
    before = traces()
    inner.write(OWN)
    shutil.copyfile(_PROJECT / "tests/vm/test_catalogue.py", inner.folder / "test_catalogue.py")
    shutil.copytree(_PROJECT / "examples/overlay_umount", inner.folder / "example")
    files = [str(inner.folder / "test_catalogue.py"), str(inner.folder / "example")]
    code, output = inner.run(*files, *options, "-rA", "-k", f"not ({' or '.join(_LEFT_OUT)})")
    # What a test made by commands may be anybody's: it is reported, and left alone.
    there("umount /tmp/leak; rmdir /tmp/leak; losetup -D; rm /tmp/leaked")
    assert code == 1, output
    told = re.findall(r"^(PASSED|FAILED|ERROR|XPASS) (\S+)::test_(\w+)", output, re.MULTILINE)
    assert {name: word for word, file, name in told if file.endswith("test_inner.py")} == _VERDICTS, output
    others = [word for word, file, _name in told if not file.endswith("test_inner.py")]
    assert set(others) == {"PASSED"}, output
    assert len(others) > 20
    for reason in _NOT_DONE:
        assert reason in output
    assert "mount: tmpfs on /tmp/leak" in output
    assert re.search(r"loop device: /dev/loop\d+ on /tmp/leaked", output)
    assert "still has, of what tests made there" not in output
    until(lambda: traces() == before, "the end of all that the run made there")


def test_another_kernel_than_the_one_asked_for(inner: InnerRun, options: list[str]) -> None:
    inner.write("def test_it(vm): pass\n")
    code, output = inner.run(*options, "--kernel=3.99")
    assert code != 0
    assert "3.99" in output


def test_a_wrong_key_is_one_error(inner: InnerRun, sshd_machine: SshdMachine) -> None:
    inner.write("def test_one(vm): pass\ndef test_two(vm): pass\n")
    start = time.monotonic()
    code, output = inner.run(*_options(sshd_machine, "intruder"))
    # As a kernel was asked for, it is looked at before any test.
    assert code == 4, output
    assert output.count("cannot reach intruder over ssh: it refuses our key") == 1
    assert time.monotonic() - start < 200


SLOW = """
import pathlib

def test_first(vm, xfs, loop_device):
    folder = pathlib.Path(__file__).parent
    (folder / "started").touch()
    vm.run("sleep 60 & sleep 60", timeout=100)

def test_next(vm):
    pass
"""


def test_a_second_run_waits_for_the_first(inner: InnerRun, options: list[str]) -> None:
    inner.write(
        "import time, pathlib\n"
        "def test_it(vm):\n"
        "    with (pathlib.Path(__file__).parent / 'log').open('a') as log:\n"
        "        log.write('in ')\n"
        "        log.flush()\n"
        "        vm.run('sleep 1', check=True)\n"
        "        log.write('out ')\n"
    )
    runs = [inner.start(*options, "-p", "no:cacheprovider") for _ in range(2)]
    for run in runs:
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
    assert (inner.folder / "log").read_text() == "in out in out "


def test_nothing_stays_of_a_run_that_is_killed(
    inner: InnerRun, options: list[str], traces: Callable[[], list[str]]
) -> None:
    before = traces()
    inner.write(SLOW)
    process = inner.start(*options)
    until((inner.folder / "started").exists, "the start of the test")
    assert traces() != before
    process.kill()
    process.wait()
    until(lambda: traces() == before, "the end of all that the run made there")


VANISHES = """
import pathlib

FOLDER = pathlib.Path(__file__).parent

def test_first(vm, xfs, loop_device):
    (FOLDER / "started").touch()
    try:
        vm.run("sleep 900", timeout=900)
    finally:
        (FOLDER / "noticed").touch()

def test_next(vm, xfs):
    assert vm.run("cat /proc/uptime", check=True).stdout
"""


def test_a_machine_that_vanishes_is_an_error_in_time_and_the_run_goes_on_when_it_is_back(
    inner: InnerRun, boot_sshd: Callable[[], SshdMachine]
) -> None:
    machine = boot_sshd()
    try:
        inner.write(VANISHES)
        process = inner.start(*_options(machine), "-rA", "--kernelfs-boot-timeout=600")
        until((inner.folder / "started").exists, "the start of the test")
        machine.kill()
        # Neither the command nor its time is waited for.
        until((inner.folder / "noticed").exists, "the end of the test")
        machine.boot()
        output, _ = process.communicate(timeout=900)
    finally:
        machine.close()
    assert process.returncode == 1, output
    assert "ERROR test_inner.py::test_first" in output
    assert "FAILED" not in output
    assert "notours vanished during the test" in output
    assert "PASSED test_inner.py::test_next" in output
    assert not inner.leftovers()
