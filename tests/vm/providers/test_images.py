"""Disk images of tiny systems: which root is found, what stays as it was, and what is said of failures."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.bundle.evidence import gather
from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, KernelMisbehaved, KernelPanic
from pytest_kernelfs.guest.image_agent import COMING_UP
from pytest_kernelfs.machines import qcow2
from pytest_kernelfs.machines.admission import NO_SLOT
from pytest_kernelfs.machines.disk_image import DiskImage
from pytest_kernelfs.machines.initramfs.image import build_initramfs
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.qemu.command import Launch
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.machines.vm import VM
from tests.disks import MIB, Partition, make_filesystem, tiny_root, tiny_system, write_gpt
from tests.vm.inner import InnerRun, until


@pytest.fixture(autouse=True)
def one_kernel(kernel: Kernel) -> None:
    """Another than that of the image with systemd, which hardly differs in what is tried here."""
    if not kernel.version.matches(">=6.1,<6.2"):
        pytest.skip("hardly depends on the kernel: it runs on 6.1")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def running(provider: QemuProvider, kernel: Kernel, spec: MachineSpec) -> Iterator[VM]:
    machine = provider.start(kernel, spec)
    try:
        yield VM(machine)
    finally:
        machine.destroy()


def test_machines_boot_the_image_and_leave_it_alone(
    kernel: Kernel, spec: MachineSpec, inner: InnerRun, tmp_path: Path
) -> None:
    parts = [
        Partition(make_filesystem(tmp_path / "boot", "ext4", 4 * MIB)),
        Partition(make_filesystem(tmp_path / "swap", "swap", 64 * MIB)),
        Partition(tiny_root(tmp_path / "root"), label="the root"),
    ]
    image = write_gpt(tmp_path / "image", parts)
    before = digest(image)
    provider = QemuProvider(Settings(inner.cache, image=image))
    assert str(image) in provider.describe()
    with running(provider, kernel, spec) as vm:
        assert vm.run("uname -r").stdout.strip() == kernel.release
        assert vm.run("cat /proc/1/comm").stdout == "init\n"
        assert "/dev/vda3 / ext4 rw" in vm.run("cat /proc/mounts").stdout
        assert kernel.release in vm.run("ls /lib/modules").stdout
        vm.run("echo mine > /root/mine; sync", check=True)
        with pytest.raises(KernelMisbehaved, match="was shut down or rebooted"):
            vm.run("poweroff -f")
    with running(provider, kernel, spec) as vm:
        assert vm.run("test -e /root/mine").failed
        with pytest.raises(KernelPanic, match="sysrq triggered crash"):
            vm.run("echo c > /proc/sysrq-trigger")
    with running(provider, kernel, spec) as vm:
        # The agent lives in memory, and goes on without the root.
        vm.run("fsfreeze --freeze /", check=True)
        with pytest.raises(GuestTimeout, match="SIGKILL did not end it"):
            vm.run("echo x > /x", timeout=3)
        assert any(told.startswith("sh ") for told in gather(vm, failed=False).blocked or [])
    assert len(inner.templates()) == 1
    assert digest(image) == before
    provider.close()


def test_an_image_may_be_a_layer_on_a_btrfs_whose_root_is_a_subvolume(
    kernel: Kernel, spec: MachineSpec, inner: InnerRun, tmp_path: Path
) -> None:
    disk = make_filesystem(tmp_path / "btrfs.raw", "btrfs", 128 * MIB)
    tiny_system(tmp_path / "system")
    (tmp_path / "system/usr").mkdir()
    if os.geteuid() or not shutil.which("btrfs", path="/usr/sbin:/sbin:/usr/bin:/bin"):
        pytest.skip("to make a subvolume takes root, and btrfs-progs")
    script = (
        "mount -o loop,rw $1 $2 && PATH=$PATH:/usr/sbin:/sbin btrfs -q subvolume create $2/root && "
        "cp -a $3/. $2/root; code=$?; umount $2; exit $code"
    )
    (tmp_path / "mounted").mkdir()
    words = [str(tmp_path / name) for name in ("btrfs.raw", "mounted", "system")]
    made = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this host cannot mount a btrfs: {made.stderr.strip()}")
    layer = tmp_path / "layer.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw", str(layer)], check=True
    )
    assert qcow2.backing_of(layer.read_bytes()) == str(disk)
    provider = QemuProvider(Settings(inner.cache, image=layer))
    with running(provider, kernel, spec) as vm:
        mounts = vm.run("cat /proc/mounts").stdout
        assert "/dev/vda / btrfs rw" in mounts
        assert "subvol=/root" in mounts


Boot = Callable[[Path], QemuMachine]


@pytest.fixture
def boot(kernel: Kernel, spec: MachineSpec, provider: QemuProvider) -> Iterator[Boot]:
    """Boot an image without a template."""
    machines = []

    def boot(image: Path) -> QemuMachine:
        initramfs = build_initramfs(provider.cache, kernel)
        accel = provider.accelerator(kernel).name
        launch = Launch(find_qemu(), accel, kernel, initramfs, spec, scratch=image.parent)
        machines.append(QemuMachine(replace(launch, image=DiskImage.read(image)), NO_SLOT))
        return machines[-1]

    yield boot
    for machine in machines:
        machine.destroy()


SLOW = """#!/bin/sh
case $1 in
    is-system-running) echo starting ;;
    list-jobs) echo "7 slow.service start running"; echo "8 other.service start waiting" ;;
esac
"""


def slow_root(path: Path) -> Path:
    """A system whose init goes by the name of systemd, and never comes up."""
    folder = tiny_system(path.with_name("slow"), "")
    (folder / "lib/systemd").mkdir(parents=True)
    shutil.copy(folder / "bin/busybox", folder / "lib/systemd/systemd")
    (folder / "sbin/init").symlink_to("/lib/systemd/systemd")
    (folder / "bin/systemctl").write_text(SLOW)
    (folder / "bin/systemctl").chmod(0o755)
    return make_filesystem(path, "ext4", 24 * MIB, "-d", str(folder))


def test_a_disk_without_a_root_is_told_with_what_it_holds(boot: Boot, tmp_path: Path) -> None:
    swap = Partition(make_filesystem(tmp_path / "swap", "swap", 16 * MIB))
    machine = boot(write_gpt(tmp_path / "image", [swap]))
    with pytest.raises(InfrastructureError) as caught:
        machine.wait_ready(600)
    assert "ended while it booted (exit code 0): cannot boot the image: no file system" in str(caught.value)
    assert "ext4, xfs or btrfs; there is vda1 (16 MiB, swap). The console's" in str(caught.value)
    assert "more time" not in str(caught.value)


def test_an_init_that_does_not_come_up_is_told_with_what_it_waits_for(boot: Boot, tmp_path: Path) -> None:
    machine = boot(slow_root(tmp_path / "root"))
    until(lambda: COMING_UP in machine.console(), "a word from the agent")
    told = f"did not answer within 0.1 s: {COMING_UP}systemd is starting, slow.service running. The console"
    with pytest.raises(InfrastructureError, match=told):
        machine.wait_ready(0.1)
