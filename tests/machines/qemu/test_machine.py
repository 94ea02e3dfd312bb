"""What a machine leaves behind: nothing, however it ends. A program that only waits is in QEMU's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from pytest_kernelfs.errors import InfrastructureError, UsageError
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.admission import NO_SLOT
from pytest_kernelfs.machines.qemu import machine as machines
from pytest_kernelfs.machines.qemu.binary import Qemu
from pytest_kernelfs.machines.qemu.command import Launch, Memory
from pytest_kernelfs.machines.qemu.disks import DiskBay
from pytest_kernelfs.machines.qemu.machine import QemuMachine
from pytest_kernelfs.machines.qemu.template import MEMORY, STATE
from pytest_kernelfs.shortage import Shortage

from .conftest import Program

Start = Callable[[], QemuMachine]


def fail(*_: object) -> NoReturn:
    raise InfrastructureError("the disk is full")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


@pytest.fixture
def waiting(program: Program, launch: Launch, scratch: Path) -> Launch:
    """How to start a QEMU that does nothing."""
    qemu = Qemu(program("exec sleep 600"), "7.2.22", "fingerprint")
    return replace(launch, qemu=qemu, scratch=scratch)


@pytest.fixture
def start(waiting: Launch, scratch: Path) -> Start:
    """Starts a machine that has its memory for itself."""

    def start() -> QemuMachine:
        data = lease.make_data_folder(scratch)
        (data / MEMORY).write_bytes(b"memory")
        memory = Memory(data / MEMORY, shared=True)
        return QemuMachine(replace(waiting, memory=memory, incoming=True), NO_SLOT, data=data)

    return start


def test_memory_of_its_own_goes_with_a_machine(start: Start, scratch: Path) -> None:
    machine = start()
    assert [path.name for path in machine.data.iterdir()] == [MEMORY]
    machine.destroy()
    assert list(scratch.iterdir()) == []


def test_it_goes_too_if_the_machine_cannot_be_started(
    start: Start, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "make_console", fail)
    with pytest.raises(InfrastructureError, match="the disk is full"):
        start()
    assert list(scratch.iterdir()) == []


def test_it_goes_too_if_the_machine_cannot_be_saved(
    start: Start, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QemuMachine, "suspend", fail)
    machine = start()
    with pytest.raises(InfrastructureError, match="the disk is full"):
        machine.save()
    assert not machine.alive
    assert list(scratch.iterdir()) == []


def test_what_was_saved_has_it_and_lasts_until_it_is_discarded(
    start: Start, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = start()
    (machine.data / "kfs1.raw").touch()
    (machine.data / "kfs1.log").touch()
    monkeypatch.setattr(machine, "suspend", lambda state, timeout: state.touch())
    monkeypatch.setattr(DiskBay, "make_bases", lambda bay: ())
    monkeypatch.setattr(machine, "_bay", lambda: DiskBay.__new__(DiskBay))
    saved = machine.save()
    assert not machine.alive
    machine.destroy()
    assert list(scratch.iterdir()) == [saved.folder]
    assert sorted(path.name for path in saved.folder.iterdir()) == ["kfs1.raw", MEMORY, STATE]
    assert saved.launch.memory == Memory(saved.folder / MEMORY, shared=False)
    saved.discard()
    assert list(scratch.iterdir()) == []


def test_a_machine_that_shares_its_memory_cannot_be_saved(waiting: Launch, scratch: Path) -> None:
    machine = QemuMachine(waiting, NO_SLOT)
    try:
        with pytest.raises(UsageError, match="only a machine that the fixture 'prepare' made can be saved"):
            machine.save()
        assert machine.alive
    finally:
        machine.destroy()
    assert not scratch.exists()


def test_a_host_too_slow_for_qemu_says_nothing_of_what_it_runs(
    waiting: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "DEFAULT_TIMEOUT_S", 0.0)
    machine = QemuMachine(waiting, NO_SLOT)
    try:
        with pytest.raises(Shortage, match="QEMU made no socket within 0 s"):
            machine.resume(Path("state"), 60)
    finally:
        machine.destroy()
