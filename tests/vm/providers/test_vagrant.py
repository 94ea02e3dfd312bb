"""Whole runs in machines of Vagrant's, with a libvirtd and a network of the tests' own."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.fixtures.machines import RUN
from pytest_kernelfs.machines.vagrant import box
from pytest_kernelfs.tools import find
from tests.vm.inner import InnerRun, copy_entries, until
from tests.vm.providers.hypervisor import URI, Hypervisor, running

_PROJECT = Path(__file__).parents[3]
_NEEDED = ("vagrant", "mmdebstrap", "qemu-img", "dnsmasq", "ssh")
# Under emulation, beside other tests, a distribution takes a minute or two to come up.
_PATIENCE = "--kernelfs-boot-timeout=400"


@pytest.fixture(scope="module")
def host(kernel: Kernel) -> Iterator[Hypervisor]:
    """One libvirtd for all tests: what it stores of the box need not be brought there again."""
    if not kernel.version.matches(">=7.0"):
        pytest.skip("hardly depends on the kernel: it runs on the newest")
    missing = [name for name in _NEEDED if find(name) is None]
    if missing:
        pytest.skip(f"the host lacks {', '.join(missing)}: run 'kernelfs setup --for-tests'")
    with running() as hypervisor:
        yield hypervisor


@pytest.fixture
def runs(host: Hypervisor, kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[InnerRun]:
    """Runs beside that libvirtd, where no network leads out: the box is built before."""
    outer = request.config.stash[RUN].config.cache_root
    box.home_with_box(Cache(outer))
    folder = Path(tempfile.mkdtemp(prefix="kfs-", dir="/tmp"))
    run = InnerRun(folder, outer, kernel.release, [*host.inside, "env", f"--chdir={folder}"])
    copy_entries(outer / box.KIND, run.cache / box.KIND)
    yield run
    run.close()


def start(runs: InnerRun, *options: str) -> tuple[int, str]:
    """Exit code and output of a whole run with the provider vagrant."""
    return runs.run("--kernelfs-provider=vagrant", _PATIENCE, *options, timeout=3000)


def leftovers(host: Hypervisor, runs: InnerRun) -> list[str]:
    """What there is of machines: in libvirt, in Vagrant's notes, and in folders. The box is not."""
    volumes = host.virsh("vol-list", "default") if "default" in host.virsh("pool-list", "--name") else ""
    machines = host.virsh("list", "--all", "--name").split()
    disks = [line.split()[0] for line in volumes.splitlines() if line and "_vagrant_box_image_" not in line]
    notes = [path.name for path in (runs.cache / "vagrant").glob("*")]
    files = [path.name for path in runs.folder.glob("kernelfs-boot-*")]
    return [*machines, *disks, *notes, *files, *runs.leftovers()]


def told(output: str, word: str) -> list[str]:
    """The tests that the run's summary has that word for."""
    return re.findall(rf"^{word} \S*?(\w+\.py::\w+)", output, re.MULTILINE)


OWN = """
import time

import pytest
from sizes import Size

def test_a_distribution_with_the_kernel_under_test(vm, kernel):
    assert vm.run("uname -r", check=True).stdout.strip() == kernel.release
    assert vm.run("systemctl is-system-running --wait", check=True).stdout.strip() == "running"
    host = vm.host
    assert host.package("openssh-server").is_installed
    assert host.service("ssh").is_running
    assert host.process.get(pid=1).comm == "systemd"
    assert host.mount_point("/").exists
    assert host.sysctl("kernel.ostype") == "Linux"
    assert host.file("/opt/project/tool").mode == 0o755
    vm.run("echo mine > /root/mark", check=True)

def size():
    return Size.bytes

def test_the_project_comes_along(vm):
    assert vm.run("/opt/project/tool", check=True).stdout == "shared tool\\n"
    assert vm.call(size) == 2048
    maps = vm.run([vm.install("cat"), "/proc/self/maps"], check=True).stdout
    assert "/run/kernelfs/installed/" in maps

def test_fails(vm):
    assert vm.run("false").succeeded

def test_wants_what_vagrant_cannot(vm):
    vm.power_cut()

@pytest.mark.isolation("test")
def test_starts_from_what_came_up(vm):
    assert vm.run("cat /root/mark").failed
    assert abs(float(vm.run("date +%s", check=True).stdout) - time.time()) < 30

@pytest.mark.isolation("test")
def test_panics(vm):
    vm.sysrq("c")
    vm.run("true")

@pytest.mark.isolation("test")
def test_resets(vm):
    vm.sysrq("b")
    vm.run("true")

@pytest.mark.isolation("test")
def test_shuts_down(vm):
    vm.run("systemctl poweroff; sleep 600", timeout=600)
"""


def test_all_that_other_machines_can(host: Hypervisor, runs: InnerRun) -> None:
    """The catalogue, the example (less its longest tests) and the verdicts, in one machine.

    For isolation it is put back to how it came up.
    """
    runs.write(OWN)
    project = runs.folder / "project"
    project.mkdir()
    (project / "sizes.py").write_text("class Size:\n    bytes = 2 << 10\n")
    (project / "tool").write_text("#!/bin/sh\necho shared tool\n")
    (project / "tool").chmod(0o755)
    brought = (f"--kernelfs-share={project}:/opt/project", f"--override-ini=pythonpath={project}")
    shutil.copyfile(_PROJECT / "tests/vm/test_catalogue.py", runs.folder / "test_catalogue.py")
    shutil.copytree(_PROJECT / "examples/overlay_umount", runs.folder / "example")
    files = [str(runs.folder / "test_catalogue.py"), str(runs.folder / "example")]
    code, output = start(runs, *files, *brought, "-rA", "-k", "not twice and not first_of_serial")
    assert code == 1, output
    assert told(output, "ERROR") == told(output, "XPASS") == [], output
    failed = [f"test_inner.py::test_{name}" for name in ("fails", "panics", "resets", "shuts_down")]
    assert told(output, "FAILED") == failed, output
    assert "sysrq: Resetting" in output
    assert "reboot: Power down" in output
    passed = told(output, "PASSED")
    assert "test_inner.py::test_starts_from_what_came_up" in passed
    assert len([name for name in passed if name.startswith("test_catalogue.py")]) > 30, output
    assert "sysrq: Trigger a crash" in output
    for problem in ("be saved, so that a fresh one", "be put back to how it started", "be destroyed"):
        assert f"could not {problem}" not in output
        assert f"cannot {problem}" not in output
    assert "cannot cut the power of its machines" in output
    assert leftovers(host, runs) == []


def test_a_kernel_that_does_not_boot(host: Hypervisor, runs: InnerRun) -> None:
    runs.write(
        "import pytest\n"
        "@pytest.mark.vm(boot_parameters='rdinit=/nothing root=/dev/nothing')\n"
        "def test_it(vm): pass\n"
    )
    begun = time.monotonic()
    code, output = start(runs)
    assert code == 1, output
    assert "1 error" in output
    assert "panicked while it booted" in output
    assert "VFS: Unable to mount root" in output
    # Long before the time that a boot may take.
    assert time.monotonic() - begun < 380
    assert leftovers(host, runs) == []


def test_a_machine_that_does_not_come_up_in_time(host: Hypervisor, runs: InnerRun) -> None:
    runs.write("def test_it(vm): pass\n")
    code, output = start(runs, "--kernelfs-boot-timeout=8")
    assert code == 1, output
    assert "vagrant did not end within 8 s" in output
    assert leftovers(host, runs) == []


def test_what_is_missing_is_said_at_once(host: Hypervisor, runs: InnerRun) -> None:
    runs.write("def test_one(vm): pass\ndef test_two(vm): pass\n")
    code, output = start(runs, "--kernelfs-vagrant-box=nobody/nothing")
    assert code == 1, output
    assert "there is no such box" in output
    host.kill_daemon()
    try:
        code, output = start(runs)
    finally:
        host.start_daemon()
    assert code == 4, output
    assert output.count("needs libvirtd, which does not answer at qemu:///system") == 1, output
    assert leftovers(host, runs) == []


def test_a_run_that_was_killed_leaves_nothing_to_the_next(host: Hypervisor, runs: InnerRun) -> None:
    runs.write("def test_it(vm): pass\n")
    process = runs.start("--kernelfs-provider=vagrant", _PATIENCE)
    until(lambda: host.virsh("list", "--name"), "the start of a machine")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    notes = [path.name for path in (runs.cache / "vagrant").glob("*")]
    assert leftovers(host, runs) != []
    # As it is if the run is killed before Vagrant has noted its machine.
    forgotten = f"kernelfs-{notes[0].rpartition('-')[0]}-forgotten-default.img"
    host.virsh("vol-create-as", "default", forgotten, "1M")
    collected = host.run(
        [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(runs.cache), "gc", "--libvirt-uri", URI],
        env={"TMPDIR": str(runs.folder)},
    )
    assert "destroyed the machine" in collected.stdout
    assert f"removed the volume {forgotten} at {URI}" in collected.stdout
    assert host.machines() == []
    assert leftovers(host, runs) == []
