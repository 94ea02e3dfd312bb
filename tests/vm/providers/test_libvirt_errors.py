"""What goes wrong with machines that libvirt runs: one clear message each, in time, and nothing left."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from textwrap import dedent

import pytest

from tests.vm.providers.hypervisor import URI
from tests.vm.providers.libvirt_runs import OPTIONS, LibvirtRun

pytestmark = pytest.mark.usefixtures("newest_only")

DEATHS = """
    import os, pathlib, signal, subprocess

    def end_libvirtd():
        os.kill(int(pathlib.Path("/run/libvirt/self.pid").read_text()), signal.SIGKILL)

    def test_panic(vm):
        vm.run("echo c > /proc/sysrq-trigger; sleep 100")

    def test_shut_down(vm):
        vm.run("echo o > /proc/sysrq-trigger; sleep 100")

    def test_wrong(vm):
        assert vm.run("false").succeeded

    def test_qemu_is_killed(vm):
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            if b"qemu-system" in path.read_bytes().split(b"\\0")[0]:
                os.kill(int(path.parent.name), signal.SIGKILL)
        vm.run("sleep 100")

    def test_libvirtd_is_killed(vm):
        end_libvirtd()
        vm.run("sleep 100")

    def test_after_it_was_killed(vm):
        vm.run("true")

    def test_libvirtd_is_started_again(kernel):  # or it would be run behind those with a kernel
        pathlib.Path("/run/libvirt/libvirt-sock").unlink()
        subprocess.run(["libvirtd", "-d", "-p", "/run/libvirt/self.pid"], check=True)

    def test_all_is_well(vm, disk):
        vm.run("true", check=True)
"""


def test_each_death_has_its_verdict(libvirt: LibvirtRun) -> None:
    libvirt.write(dedent(DEATHS))
    begin = time.monotonic()
    code, output = libvirt.run(*OPTIONS, "-v", "-rA")
    assert code == 1
    # Eight boots, and none of the commands is waited for.
    assert time.monotonic() - begin < 800
    for name in ("panic", "shut_down", "wrong"):
        assert re.search(rf"^FAILED .*test_{name}\b", output, re.MULTILINE), output
    for name in ("qemu_is_killed", "libvirtd_is_killed", "after_it_was_killed"):
        assert re.search(rf"^ERROR .*test_{name}\b", output, re.MULTILINE), output
    assert "sysrq triggered crash" in output
    assert "was shut down or rebooted during the test" in output
    assert "QEMU crashed or was killed" in output or "QEMU failed" in output
    assert "the connection to libvirt at qemu:///system broke" in output
    assert "cannot connect to libvirt at qemu:///system" in output
    assert re.search(r"^PASSED .*test_all_is_well\b", output, re.MULTILINE), output
    assert libvirt.left() == []


def test_what_a_killed_run_left_is_collected(libvirt: LibvirtRun) -> None:
    libvirt.write(
        "def test_long(vm, disk):\n    print('ready', flush=True)\n    vm.run('sleep 600', timeout=900)\n"
    )
    run = libvirt.start(*OPTIONS, "-s")
    assert run.stdout is not None
    assert any("ready" in line for line in run.stdout)
    for pid in libvirt.hypervisor.processes("python"):
        os.kill(pid, signal.SIGKILL)
    run.communicate(timeout=300)
    assert libvirt.left() != []
    command = [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(libvirt.cache), "gc"]
    done = libvirt.hypervisor.run([*command, "--libvirt-uri", URI], env={"TMPDIR": str(libvirt.folder)})
    assert re.search(r"^ended the domain kernelfs-\S+ at qemu:///system$", done.stdout, re.MULTILINE), (
        done.stdout
    )
    assert re.search(r"^removed the storage pool kernelfs-\S+ at", done.stdout, re.MULTILINE), done.stdout
    assert libvirt.left() == []


USES_A_MACHINE = "def test_it(vm):\n    pass\n"
DOES_NOT_BOOT = f'import pytest\n\n@pytest.mark.vm(boot_parameters="rdinit=/nowhere")\n{USES_A_MACHINE}'


def test_what_cannot_start_is_one_error(libvirt: LibvirtRun) -> None:
    inside = libvirt.hypervisor.run
    libvirt.write(USES_A_MACHINE)
    nowhere = "--kernelfs-libvirt-uri=qemu+unix:///system?socket=/nowhere/sock"
    code, output = libvirt.run(*OPTIONS, nowhere, "-q")
    assert code == 4
    assert "no tests ran" in output
    assert re.search(r"cannot connect to libvirt at .*/nowhere/sock.*; start its daemon", output), output

    inside(["mount", "-t", "tmpfs", "-o", "size=16M", "none", "/var/lib/libvirt/images"])
    _code, output = libvirt.run(*OPTIONS, "-q")
    assert "1 error" in output
    assert re.search(
        r"no room for initramfs in /var/lib/libvirt/images/.* are free, .* are needed", output
    ), output
    assert inside(["ls", "-A", "/var/lib/libvirt/images"]).stdout == ""
    inside(["umount", "/var/lib/libvirt/images"])

    libvirt.write(DOES_NOT_BOOT)
    _code, output = libvirt.run(*OPTIONS, "-q")
    assert "1 error" in output
    assert "panicked while it booted" in output
    assert "Unable to mount root fs" in output
    assert libvirt.left() == []
