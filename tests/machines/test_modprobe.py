"""Modules are loaded from the machine's own archive, else brought from the host with all they need."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError
from pytest_kernelfs.machines.vm import VM
from tests.fake_machine import FakeMachine, ran

DEP = """\
kernel/drivers/md/dm-delay.ko: kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-mod.ko:
"""


class Guest:
    """Answers modprobe, test -e and insmod; ``loaded`` are modules that are there already."""

    def __init__(self, *, has: bool = False, loaded: tuple[str, ...] = (), refusal: str = "") -> None:
        self.has = has
        self.loaded = loaded
        self.refusal = refusal

    def __call__(self, words: list[str], *_: Any) -> dict[str, Any]:
        if words[0] == "modprobe":
            return ran(0) if self.has else ran(1, stderr="modprobe: FATAL: Module not found\n")
        if words[0] == "test":
            return ran(0 if words[-1].rpartition("/")[2] in self.loaded else 1)
        return ran(1, stderr=self.refusal) if self.refusal else ran(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dm-delay", "dm-mod"):
        path = tmp_path / f"kernel/drivers/md/{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "modules.dep").write_text(DEP)
    return tmp_path


def vm_of(guest: Guest, folder: Path | None) -> tuple[VM, FakeMachine]:
    machine = FakeMachine(run=guest)
    machine.kernel = dataclasses.replace(machine.kernel, modules=folder)
    return VM(machine), machine


def commands(machine: FakeMachine) -> list[str]:
    return [" ".join(arguments[0]) for arguments in machine.arguments("run")]


def test_a_module_of_the_archive_is_loaded_with_its_parameters(folder: Path) -> None:
    vm, machine = vm_of(Guest(has=True), folder)
    vm.modprobe("null_blk", nr_devices=2, queue_mode=0)
    assert commands(machine) == ["modprobe null_blk nr_devices=2 queue_mode=0"]


def test_another_is_brought_after_what_it_needs(folder: Path) -> None:
    vm, machine = vm_of(Guest(), folder)
    vm.modprobe("dm_delay", x=1)
    assert [put[1] for put in machine.arguments("put")] == [b"dm-mod", b"dm-delay"]
    inserted = [command for command in commands(machine) if command.startswith("insmod")]
    assert [command.rpartition("/")[2] for command in inserted] == ["dm-mod.ko", "dm-delay.ko x=1"]


def test_what_is_loaded_already_is_not_brought(folder: Path) -> None:
    vm, machine = vm_of(Guest(loaded=("dm_mod",)), folder)
    vm.modprobe("dm-delay")
    assert [put[1] for put in machine.arguments("put")] == [b"dm-delay"]


def test_a_module_that_the_kernel_lacks_is_told(folder: Path) -> None:
    vm, machine = vm_of(Guest(), folder)
    with pytest.raises(
        GuestCommandError, match=r"has no module btrfs \(modprobe: FATAL: Module not found\)"
    ) as told:
        vm.modprobe("btrfs")
    assert 'kernel_needs("module:btrfs")' in str(told.value)
    assert machine.arguments("put") == []


def test_a_kernel_without_modules_has_none() -> None:
    vm, _ = vm_of(Guest(), None)
    with pytest.raises(GuestCommandError, match="has no module dm_delay"):
        vm.modprobe("dm_delay")


def test_a_module_that_the_kernel_refuses_is_told_in_its_words(folder: Path) -> None:
    vm, _ = vm_of(Guest(refusal="insmod: ERROR: Invalid module format\n"), folder)
    with pytest.raises(GuestCommandError, match="refused the module dm_mod: insmod: ERROR: Invalid module"):
        vm.modprobe("dm_delay")


def test_a_module_that_came_meanwhile_is_no_error(folder: Path) -> None:
    vm, machine = vm_of(Guest(refusal="insmod: ERROR: File exists\n"), folder)
    vm.modprobe("dm_delay")
    assert len(machine.arguments("put")) == 2


def test_a_parameter_that_the_kernel_ignored_is_an_error(folder: Path) -> None:
    """modprobe succeeds, and a test would go on without what it asked for."""
    text = "scsi_debug: unknown parameter 'lpbu' ignored"
    vm, machine = vm_of(Guest(has=True), folder)
    machine.answers["read"] = [{"seq": 1, "level": 4, "seconds": 1.0, "text": text}]
    with pytest.raises(GuestCommandError, match=r"module scsi_debug of kernel .* has no parameter lpbu$"):
        vm.modprobe("scsi_debug", lpbu=1, delay=0)
    assert "modprobe -r scsi_debug" in commands(machine)
    vm.modprobe("scsi_debug", lbpu=1)
    assert machine.arguments("read") == [(1,), (1,)]  # what was logged since, not of another module before


@pytest.mark.parametrize(("found", "given"), [("1", 2), ("Y", 0), ("N", True), ("lz4", "zstd")])
def test_a_module_that_was_loaded_with_another_value_is_an_error(
    folder: Path, found: str, given: object
) -> None:
    vm, machine = vm_of(Guest(has=True), folder)
    machine.answers.update(is_loaded=True, text=found)
    with pytest.raises(GuestCommandError, match=rf"nbd is loaded already, with max={found}, .* max={given} "):
        vm.modprobe("nbd", max=given)
    assert machine.arguments("text") == [("/sys/module/nbd/parameters/max",)]


@pytest.mark.parametrize(
    ("found", "given"),
    [("1", 1), ("Y", 1), ("N", False), ("16", "0x10"), ("8", "010"), ("N", "off"), ("", 5)],
)
def test_one_that_was_loaded_with_the_same_is_not(folder: Path, found: str, given: object) -> None:
    vm, machine = vm_of(Guest(has=True), folder)
    machine.answers.update(is_loaded=True, text=found)
    vm.modprobe("dm-delay", max=given)
    assert machine.arguments("is_loaded") == [("dm_delay",)]
