"""Programs of the host, started in machines."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from pytest_kernelfs import VM, Preparer
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import installing
from pytest_kernelfs.machines.elf import libraries, read_elf
from pytest_kernelfs.machines.machine import Provider

pytestmark = pytest.mark.usefixtures("newest_only")

BIN = installing.BIN
CAT = Path(str(shutil.which("cat"))).resolve()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program and libraries of its own, which are found by LD_LIBRARY_PATH only."""
    elf = read_elf(CAT)
    for name, path in libraries(CAT, elf.loader, "").items():
        shutil.copy(path, tmp_path / name)
    shutil.copy(CAT, tmp_path / "own-cat")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    return tmp_path


def test_a_program_runs_with_its_own_libraries(vm: VM, project: Path) -> None:
    assert vm.install(project / "own-cat") == f"{BIN}/own-cat"
    maps = vm.run("own-cat /proc/self/maps", check=True).stdout
    mapped = {line.split()[5] for line in maps.splitlines() if ".so" in line}
    assert mapped
    assert all(path.startswith("/run/kernelfs/installed/") for path in mapped)
    assert vm.run(["own-cat", "/proc/self/comm"], check=True).stdout == "own-cat\n"
    assert vm.run("echo 'a  b' | own-cat - '/no where'").stdout == "a  b\n"


def test_a_program_of_this_host_uses_the_libraries_that_are_there(vm: VM) -> None:
    assert vm.install("cat", "/opt/tools/my cat") == "/opt/tools/my cat"
    maps = vm.run(["/opt/tools/my cat", "/proc/self/maps"], check=True).stdout
    assert "/usr/lib" in maps
    assert "installed/lib" not in maps


def test_installed_programs_come_first(vm: VM, tmp_path: Path) -> None:
    for word in ("one", "two"):
        (tmp_path / "mkfs.xfs").write_text(f"#!/usr/bin/env -S sh\necho {word}\n")
        vm.install(tmp_path / "mkfs.xfs")
        assert vm.run("mkfs.xfs", check=True).stdout == f"{word}\n"
        assert vm.run(["mkfs.xfs"], check=True).stdout == f"{word}\n"
    assert vm.call(_where) == f"{BIN}/mkfs.xfs"
    with pytest.raises(GuestCommandError, match=r"mkfs\.xfs is there already in this machine"):
        vm.install(tmp_path / "mkfs.xfs", vm.run("PATH=/usr/sbin:/sbin command -v mkfs.xfs").stdout.strip())


def _where() -> str | None:
    return shutil.which("mkfs.xfs")


def test_a_static_program(vm: VM) -> None:
    ldconfig = Path("/sbin/ldconfig")
    if not ldconfig.exists() or read_elf(ldconfig).loader:
        pytest.skip("this host has no static ldconfig")
    assert "ldconfig" in vm.run([vm.install(ldconfig), "--version"], check=True).stdout


def test_what_cannot_be_installed(vm: VM, tmp_path: Path) -> None:
    other, name = (62, "x86_64") if os.uname().machine == "aarch64" else (183, "aarch64")
    (tmp_path / "foreign").write_bytes(
        b"\x7fELF\2\1\1"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, other, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    )
    (tmp_path / "script").write_text("#!/opt/python9/bin/python\n")
    (tmp_path / "data").write_text("words")
    said = f"foreign is a program for {name}, and the machine is {os.uname().machine}; build it for that"
    with pytest.raises(UsageError, match=said):
        vm.install(tmp_path / "foreign")
    with pytest.raises(
        GuestCommandError, match=r"is started with /opt/python9/bin/python, which this machine"
    ):
        vm.install(tmp_path / "script")
    with pytest.raises(UsageError, match="data is neither a program"):
        vm.install(tmp_path / "data")
    with pytest.raises(UsageError, match="missing is not there; build it first"):
        vm.install(tmp_path / "missing")
    with pytest.raises(
        UsageError, match="'no-such-command' is neither a file here nor a command on the host's"
    ):
        vm.install("no-such-command")
    with pytest.raises(UsageError, match="the target 'bin/x' is no absolute path"):
        vm.install("cat", "bin/x")
    assert vm.run(f"ls {BIN}").stdout == ""


def test_a_checkpoint_keeps_what_was_installed(
    prepare: Preparer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = prepare()
    machine.vm.install("cat", "/opt/kept")
    fork = provider.fork(machine.checkpoint().saved)
    try:
        vm = VM(fork)
        assert vm.run("/opt/kept /proc/version", check=True).stdout
        monkeypatch.setattr(VM, "put", None)  # nothing is sent again
        assert vm.run([vm.install("cat"), "/proc/version"], check=True).stdout
    finally:
        fork.destroy()
