"""The Debian package that a kernel is installed with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.kernels.version import KernelVersion
from pytest_kernelfs.machines.vagrant import package

RELEASE = "6.12.0_Test+deb"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    modules = tmp_path / "modules"
    (modules / "kernel").mkdir(parents=True)
    (modules / "kernel/a.ko").write_bytes(b"module")
    (modules / ("long" * 40)).touch()
    for name in ("vmlinuz", "config"):
        (tmp_path / name).write_text(name)
    version = KernelVersion.parse("6.12.117")
    return Kernel(version, RELEASE, "test", "0", tmp_path / "vmlinuz", modules, tmp_path / "config")


def deb(*words: str) -> str:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("this host has no dpkg-deb to read packages with")
    return subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True).stdout


def test_dpkg_reads_it(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "kernel.deb"
    package.build(kernel, file)
    assert deb("-f", str(file), "Package", "Version").split() == [
        "Package:", "kernelfs-kernel-6.12.0-test+deb", "Version:", "6.12.117",
    ]  # fmt: skip
    listed = deb("-c", str(file))
    assert all("root/root" in line for line in listed.splitlines())
    for path in (f"boot/vmlinuz-{RELEASE}", f"boot/config-{RELEASE}", f"modules/{RELEASE}/kernel/a.ko"):
        assert path in listed
    deb("-x", str(file), str(tmp_path / "root"))
    assert (tmp_path / f"root/lib/modules/{RELEASE}/kernel/a.ko").read_bytes() == b"module"
    assert not list(tmp_path.glob("*.data"))


def test_its_script_is_sound_and_names_the_kernel(kernel: Kernel, tmp_path: Path) -> None:
    file = tmp_path / "kernel.deb"
    package.build(kernel, file)
    deb("-e", str(file), str(tmp_path / "control"))
    script = tmp_path / "control/postinst"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    assert f"gnulinux-{RELEASE}-advanced" in script.read_text()
    assert "net.ifnames" not in script.read_text()
