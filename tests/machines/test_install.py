"""What is brought into a machine for a program to start there."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import installing
from pytest_kernelfs.guest.installing import BIN, PLACE
from pytest_kernelfs.machines.elf import libraries, read_elf
from pytest_kernelfs.machines.vm import VM
from tests.fake_machine import FakeMachine

CAT = Path(str(shutil.which("cat"))).resolve()
LOADER = read_elf(CAT).loader


class Guest:
    """A machine for our processor; ``has`` says which files of this host are there."""

    def __init__(self, *, has: bool = False, complete: bool = False, interpreter: bool = True) -> None:
        self.machine = FakeMachine(
            machine=os.uname().machine,
            heads=lambda paths: installing.heads(paths) if has else {},
            begin=not complete,
            put=None,
            finish=None,
            which=interpreter,
        )
        self.vm = VM(self.machine)

    @property
    def brought(self) -> dict[str, int]:
        """Paths, below the folder of the program, and how many bytes came there."""
        sizes: dict[str, int] = {}
        for path, data, mode, _ in self.machine.arguments("put"):
            assert stat.S_IMODE(mode) == 0o755
            place = path.removeprefix(f"{PLACE}/").partition("/")[2]
            sizes[place] = sizes.get(place, 0) + len(data)
        return sizes

    @property
    def finish(self) -> tuple[Any, ...]:
        (arguments,) = self.machine.arguments("finish")
        return arguments


def test_a_program_comes_alone_where_its_libraries_are() -> None:
    guest = Guest(has=True)
    assert guest.vm.install(CAT) == f"{BIN}/cat"
    assert guest.brought == {"program/cat": CAT.stat().st_size}
    name, program, target, wrapper = guest.finish
    assert guest.machine.arguments("begin") == [(name, CAT.stat().st_size)]
    assert (program, target, wrapper) == ("program/cat", f"{BIN}/cat", "")


def test_a_program_brings_libraries_and_loader_where_others_are() -> None:
    guest = Guest()
    assert guest.vm.install("cat", "/opt/my cat") == "/opt/my cat"
    wanted = {f"lib/{name}": path.stat().st_size for name, path in libraries(CAT, LOADER, "").items()}
    assert guest.brought == {
        "program/cat": CAT.stat().st_size,
        "loader/cat": Path(LOADER).stat().st_size,
        **wanted,
    }
    name, _, target, wrapper = guest.finish
    folder = f"{PLACE}/{name}"
    first, second = wrapper.splitlines()
    assert first == "#!/bin/sh"
    assert shlex.split(second) == [
        *("exec", f"{folder}/loader/cat", "--library-path", f"{folder}/lib", f"{folder}/program/cat", "$@")
    ]
    assert target == "/opt/my cat"


def test_libraries_from_elsewhere_always_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, path in libraries(CAT, LOADER, "").items():
        shutil.copy(path, tmp_path / name)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    guest = Guest(has=True)
    guest.vm.install(CAT)
    assert f"loader/{CAT.name}" in guest.brought


def test_what_is_there_is_not_sent_again() -> None:
    guest = Guest(has=True, complete=True)
    guest.vm.install(CAT)
    assert guest.brought == {}
    assert guest.finish


def test_the_folder_is_named_after_the_content(tmp_path: Path) -> None:
    names = []
    for text in ("one", "two", "one"):
        (tmp_path / "script").write_text(f"#!/bin/sh\n{text}\n")
        guest = Guest()
        guest.vm.install(tmp_path / "script")
        names.append(guest.finish[0])
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    ("line", "interpreter"),
    [
        ("#!/usr/bin/perl -w", "/usr/bin/perl"),
        ("#! /usr/bin/env python9", "python9"),
        ("#!/usr/bin/env -S A=1 python9 -u", "python9"),
    ],
)
def test_a_script_needs_its_interpreter(tmp_path: Path, line: str, interpreter: str) -> None:
    (tmp_path / "script").write_text(f"{line}\nprint\n")
    guest = Guest()
    guest.vm.install(tmp_path / "script")
    assert guest.machine.arguments("which") == [(interpreter,)]
    with pytest.raises(
        GuestCommandError, match=f"is started with {interpreter}, which this machine does not have"
    ):
        Guest(interpreter=False).vm.install(tmp_path / "script")


def test_a_file_here_goes_before_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cat").write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    guest = Guest()
    guest.vm.install("cat")
    assert guest.brought == {"program/cat": 10}


def test_nothing_is_asked_of_the_machine_for_what_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "data").write_text("words")
    guest = Guest()
    for wrong, said in (("folder", "is no file"), ("data", "is neither a program"), ("none", "is not there")):
        with pytest.raises(UsageError, match=said):
            guest.vm.install(tmp_path / wrong)
    for target in ("relative/path", "/a/folder/"):
        with pytest.raises(UsageError, match="is no absolute path of a file in the guest"):
            guest.vm.install(CAT, target)
    assert guest.machine.calls == []
