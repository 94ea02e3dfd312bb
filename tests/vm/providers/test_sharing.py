"""Files, programs and modules of the host on machines that run already, and none of them left there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.machines.local.provider import LocalProvider
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu.provider import QemuProvider
from pytest_kernelfs.machines.shares import parse_shares
from pytest_kernelfs.machines.sharing import SharingProvider
from pytest_kernelfs.machines.ssh.transport import SshTransport
from pytest_kernelfs.machines.vm import VM
from tests.disks import Partition, tiny_root, write_gpt
from tests.vm.inner import InnerRun
from tests.vm.providers.libvirt_runs import OPTIONS, LibvirtRun
from tests.vm.providers.sshd import SshdMachine

FILES = {
    "kit/sizes.py": "from kit.units import UNIT\n\nclass Size:\n    bytes = 2 * UNIT\n",
    "kit/units.py": "UNIT = 1 << 10\n",
    "tool": "#!/bin/sh\necho shared tool\n",
}
TEST = """
import pytest
from kit.sizes import Size

def size():
    return Size().bytes

@pytest.mark.parametrize("number", range(2))
def test_everything_comes(vm, number):
    assert vm.run("sh /opt/kernelfs-kit/project/tool", check=True).stdout == "shared tool\\n"
    assert vm.run(["sh", vm.shared("PROJECT/tool")], check=True).stdout == "shared tool\\n"
    assert vm.call(size) == 2048
    path = vm.install("cat", f"/opt/kernelfs-kit/{number}/own-cat")
    maps = vm.run([path, "/proc/self/maps"], check=True).stdout
    assert "libc" in maps
    vm.install("PROJECT/tool", "/opt/kernelfs-kit/tool")
    assert vm.run("/opt/kernelfs-kit/tool", check=True).stdout == "shared tool\\n"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    return tmp_path / "project"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that is not there, in one that machines on this host see."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield folder / "deep/er"
    folder.rmdir()


@pytest.mark.usefixtures("this_host")
def test_nothing_stays_on_this_host(project: Path, tmp_path: Path, place: Path) -> None:
    shares = parse_shares([f"{project}:{place}/shared"])
    provider = SharingProvider(LocalProvider(Settings(tmp_path / "cache"), allowed=True), shares)
    kernel = provider.own_kernel()
    assert kernel is not None
    machine = provider.start(kernel, MachineSpec(1 << 30, 1))
    try:
        vm = VM(machine)
        assert vm.run(f"sh {place}/shared/tool", check=True).stdout == "shared tool\n"
        program = vm.install("cat", f"{place}/programs/own-cat")
        assert vm.run([program, "/proc/self/comm"], check=True).stdout.strip()
        assert (place / "shared").is_symlink()
    finally:
        machine.destroy()
        provider.close()
    assert not place.parent.exists()
    assert (project / "tool").exists()


def test_nothing_stays_on_a_machine_over_ssh(
    inner: InnerRun, sshd_machine: SshdMachine, project: Path
) -> None:
    inner.write(TEST.replace("PROJECT", str(project)))
    code, output = inner.run(
        "--kernelfs-provider=ssh",
        "--kernelfs-ssh=notours",
        f"--kernelfs-ssh-config={sshd_machine.config}",
        f"--kernelfs-share={project}:/opt/kernelfs-kit/project",
        f"--override-ini=pythonpath={project}",
    )
    assert code == 0, output
    transport = SshTransport("notours", config_file=sshd_machine.config)
    try:
        left = transport.run(["sh", "-c", "ls -d /opt/kernelfs-kit /run/kernelfs 2>/dev/null"], timeout=60)
    finally:
        transport.close()
    assert left.stdout == ""


@pytest.mark.usefixtures("newest_only")
def test_programs_and_shares_on_an_image(
    kernel: Kernel, spec: MachineSpec, inner: InnerRun, tmp_path: Path, project: Path
) -> None:
    image = write_gpt(tmp_path / "image", [Partition(tiny_root(tmp_path / "root"))])
    shares = parse_shares([f"{project}:/opt/project"])
    provider = SharingProvider(QemuProvider(Settings(inner.cache, image=image)), shares)
    machines = [provider.start(kernel, spec) for _ in range(2)]
    try:
        vm = VM(machines[-1])
        assert vm.run("sh /opt/project/tool", check=True).stdout == "shared tool\n"
        maps = vm.run([vm.install("cat"), "/proc/self/maps"], check=True).stdout
        assert "/run/kernelfs/installed/" in maps
    finally:
        for machine in machines:
            machine.destroy()
        provider.close()


@pytest.mark.usefixtures("newest_only")
def test_everything_comes_to_machines_of_libvirt(libvirt: LibvirtRun, project: Path) -> None:
    libvirt.write(TEST.replace("PROJECT", str(project)))
    given = (
        f"--kernelfs-share={project}:/opt/kernelfs-kit/project",
        f"--override-ini=pythonpath={project}",
    )
    code, output = libvirt.run(*OPTIONS, *given, timeout=600)
    assert code == 0, output
    assert libvirt.left() == []
