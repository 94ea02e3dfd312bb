"""Templates survive what happens to caches and machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from tests.vm.inner import InnerRun

pytestmark = pytest.mark.kernel(">=6.1,<6.2")

TRIVIAL = "def test_trivial(vm):\n    assert vm.run(['true']).succeeded\n"

WRECK_THEN_LOOK = """
import pytest
from pytest_kernelfs.errors import KernelMisbehaved

def test_wreck(vm):
    vm.run("sysctl -qw vm.swappiness=7; rmmod xfs; date -s 2001-01-01; dd if=/dev/zero of=/full bs=1M")

def test_panic(vm):
    with pytest.raises(KernelMisbehaved):
        vm.run("echo c > /proc/sysrq-trigger; sleep 60")

def test_power_off(vm):
    with pytest.raises(KernelMisbehaved):
        vm.run("echo o > /proc/sysrq-trigger; sleep 60")

def test_look(vm):
    assert vm.run("sysctl -n vm.swappiness").stdout.strip() == "60"
    assert vm.run("test -d /sys/module/xfs && test ! -e /full && touch /here").succeeded
    assert vm.run("date +%Y").stdout.strip() != "2001"
"""


def _zero_memory(template: Path) -> None:
    size = (template / "memory").stat().st_size
    os.truncate(template / "memory", 0)
    os.truncate(template / "memory", size)


def _cut_state(template: Path) -> None:
    os.truncate(template / "state", (template / "state").stat().st_size // 2)


def _remove_head(template: Path) -> None:
    (template / "kernel-head").unlink()


def test_a_test_that_wrecks_its_machine_harms_no_other(inner: InnerRun) -> None:
    inner.write(WRECK_THEN_LOOK)
    code, output = inner.run()
    assert code == 0, output


@pytest.mark.parametrize("damage", [_zero_memory, _cut_state, _remove_head])
def test_a_damaged_template_is_made_anew(inner: InnerRun, damage: Callable[[Path], None]) -> None:
    inner.write(TRIVIAL)
    assert inner.run()[0] == 0
    (template,) = inner.templates()
    made = (template / "state").stat().st_ino
    damage(template)
    code, output = inner.run("-W", "error")
    assert code == 0, output
    (anew,) = inner.templates()
    assert (anew / "state").stat().st_ino != made
    assert (anew / "memory").stat().st_blocks * 512 > 64 << 20


def test_templates_serve_on_in_a_cache_that_was_moved(inner: InnerRun) -> None:
    inner.write(TRIVIAL)
    assert inner.run()[0] == 0
    (template,) = inner.templates()
    made = (template / "state").stat().st_ino
    inner.cache = inner.cache.rename(inner.folder / "moved")
    code, output = inner.run("-W", "error")
    assert code == 0, output
    (same,) = inner.templates()
    assert (same / "state").stat().st_ino == made


def test_two_runs_at_once_make_one_template(inner: InnerRun) -> None:
    inner.write(TRIVIAL)
    runs = [inner.start(), inner.start()]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert len(inner.templates()) == 1


def test_another_qemu_gets_a_template_of_its_own(inner: InnerRun, monkeypatch: pytest.MonkeyPatch) -> None:
    inner.write(TRIVIAL)
    assert inner.run()[0] == 0
    programs = inner.folder / "bin"
    programs.mkdir()
    original = shutil.which("qemu-system-x86_64")
    assert original is not None
    wrapper = programs / "qemu-system-x86_64"
    wrapper.write_text(f'#!/bin/sh\nexec {original} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert inner.run()[0] == 0
    assert len(inner.templates()) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system takes root")
def test_without_room_for_a_template_machines_boot(inner: InnerRun, kernel: Kernel) -> None:
    inner.write(TRIVIAL.replace("test_trivial", "test_one") + TRIVIAL)
    small = inner.folder / "small"
    small.mkdir()
    # Kernel and ramdisk take some 300 MB, and a template wants 512 more.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700M", "tmpfs", str(small)], check=True)
    try:
        shutil.copytree(
            kernel.boot_image.parent, small / "kernels" / kernel.boot_image.parent.name, symlinks=True
        )
        code, output = inner.run(f"--kernelfs-cache={small}")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    assert code == 0, output
    assert "2 passed in" in output
    assert "there is no room for a template" in output
