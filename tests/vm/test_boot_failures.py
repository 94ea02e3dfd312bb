"""Kernels that do not come up: one clear error each, in time."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.admission import NO_SLOT
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.binary import find_qemu
from pytest_kernelfs.machines.qemu.command import Launch
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from tests.vm.inner import until

pytestmark = pytest.mark.usefixtures("newest_only")

# A busy host may be late to notice that the time is up.
LATE_S = 60.0


@pytest.fixture
def launch(kernel: Kernel, spec: MachineSpec, tmp_path: Path, provider: QemuProvider) -> Launch:
    """A cold boot with a root that holds nothing but what a test puts there."""
    accel = provider.accelerator(kernel).name
    return Launch(find_qemu(), accel, kernel, tmp_path / "initramfs", spec, scratch=tmp_path)


def _root(path: Path, init: bytes) -> None:
    """A root whose init is a shell script."""
    with path.open("wb") as file:
        archive = CpioWriter(file)
        archive.device("dev/console", 5, 1)
        if init:
            busybox = shutil.which("busybox")
            assert busybox is not None, "the package busybox-static is missing"
            archive.copy("bin/busybox", Path(busybox))
            archive.file("init", b"#!/bin/busybox sh\n" + init, 0o755)
        archive.finish()


def _failure(launch: Launch, timeout: float, after: str = "") -> str:
    """What is said of a machine that is given so many seconds, once its console has said ``after``."""
    machine = QemuMachine(launch, NO_SLOT)
    try:
        until(lambda: after in machine.console(), f"{after!r} on the console")
        start = time.monotonic()
        with pytest.raises(InfrastructureError) as caught:
            machine.wait_ready(timeout)
    finally:
        machine.destroy()
    assert time.monotonic() - start < timeout + LATE_S
    return str(caught.value)


def test_a_panic_while_booting_shows_the_console(launch: Launch) -> None:
    _root(launch.initramfs, b"")
    text = _failure(launch, 300)
    assert "panicked while it booted" in text
    assert "Unable to mount root fs" in text


def test_a_guest_that_never_answers_is_given_up(launch: Launch) -> None:
    _root(launch.initramfs, b"echo here I am\nwhile :; do /bin/busybox sleep 1; done\n")
    text = _failure(launch, 2, after="here I am")
    assert "did not answer within 2 s" in text
    assert "here I am" in text


def test_a_guest_that_powers_off_is_told(launch: Launch) -> None:
    _root(launch.initramfs, b"echo good bye\n/bin/busybox poweroff -f\n")
    text = _failure(launch, 300)
    assert "ended while it booted" in text
    assert "good bye" in text


def test_qemus_own_words_when_it_does_not_start(launch: Launch, tmp_path: Path) -> None:
    image = tmp_path / "not-a-kernel"
    image.write_bytes(b"x" * 100)
    text = _failure(replace(launch, kernel=replace(launch.kernel, image=image)), 300)
    assert "ended while it booted (exit code 1" in text
    assert "linux kernel too old" in text
