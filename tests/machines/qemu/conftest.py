"""A kernel and a QEMU that need not exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.kernels import Kernel, KernelVersion
from pytest_kernelfs.machines.machine import MachineSpec
from pytest_kernelfs.machines.qemu.binary import Qemu
from pytest_kernelfs.machines.qemu.command import Launch

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Make a shell script that plays QEMU."""

    def make(script: str) -> Path:
        path = tmp_path / "qemu-system-x86_64"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def launch() -> Launch:
    """A machine of 1 GiB and two processors that boots 6.1.176."""
    version = KernelVersion.parse("6.1.176")
    kernel = Kernel(version, "6.1.0-50-cloud-amd64", "test", "a" * 64, Path("/cache/vmlinuz"))
    qemu = Qemu(Path("/usr/bin/qemu-system-x86_64"), "7.2.22", "fingerprint")
    return Launch(qemu, "tcg", kernel, Path("/cache/key/initramfs"), MachineSpec(1 << 30, 2))
