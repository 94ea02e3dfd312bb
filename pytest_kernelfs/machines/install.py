"""Brings built programs into a guest: with their libraries, apart from all that the guest has of its own."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import installing
from pytest_kernelfs.guest.installing import BIN, PLACE
from pytest_kernelfs.machines.elf import MAGIC, libraries, read_elf

if TYPE_CHECKING:
    from pytest_kernelfs.machines.vm import VM


@dataclass
class Parcel:
    """A program, and by their places beside it the loader and libraries that it is to be started with."""

    program: Path
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def inside(self) -> str:
        return f"program/{self.program.name}"

    @cached_property
    def name(self) -> str:
        """Another for every content."""
        digest = hashlib.sha256(self.program.read_bytes())
        for place, path in sorted(self.files.items()):
            digest.update(f"{place}\0{installing.head(str(path))}\n".encode())
        return digest.hexdigest()[:16]

    def wrapper(self) -> str:
        """The script that starts it with our loader and libraries; "" if it needs none."""
        if not self.files:
            return ""
        folder = f"{PLACE}/{self.name}"
        # The loader has the program's name, so that it is found under that in lists of processes.
        loader, program = f"{folder}/loader/{self.program.name}", f"{folder}/{self.inside}"
        words = [loader, "--library-path", f"{folder}/lib", program]
        return f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n'


def install(vm: VM, binary: Path | str, target: str | None) -> str:
    """See ``VM.install``."""
    program = _find(binary)
    if target is not None and (not target.startswith("/") or target.endswith("/")):
        raise UsageError(f"vm.install: the target {target!r} is no absolute path of a file in the guest")
    try:
        with program.open("rb") as file:
            start = file.read(256)
        if start.startswith(MAGIC):
            parcel = _parcel(vm, program)
        elif start.startswith(b"#!"):
            _check_interpreter(vm, program, start)
            parcel = Parcel(program)
        else:
            raise UsageError(
                f"vm.install: {program} is neither a program (ELF) nor a script (#!); bring data with vm.put"
            )
        return _bring(vm, parcel, target or f"{BIN}/{program.name}")
    except OSError as error:
        raise UsageError(f"vm.install: cannot read {error.filename}: {error.strerror}") from None


def _find(binary: Path | str) -> Path:
    path = Path(binary).absolute()
    if isinstance(binary, str) and "/" not in binary and not path.exists():
        found = shutil.which(binary)
        if found is None:
            raise UsageError(
                f"vm.install: {binary!r} is neither a file here nor a command on the host's PATH"
            )
        path = Path(found)
    if not path.is_file():
        seen = "is no file" if path.exists() else "is not there; build it first"
        raise UsageError(f"vm.install: {path} {seen}")
    return path


def _check_interpreter(vm: VM, script: Path, start: bytes) -> None:
    """Raises: GuestCommandError if what the script is started with is not in the guest."""
    words = start[2:].partition(b"\n")[0].decode("utf-8", "replace").split()
    while words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if words and not vm.guest(installing.which, words[0]):
        raise GuestCommandError(
            f"vm.install: the script {script} is started with {words[0]}, which this machine does not have; "
            f"install that as well ({_advice(words[0])}), or begin the script with what is there"
        )


def _advice(interpreter: str) -> str:
    return f'vm.install("{interpreter}"' + (f', "{interpreter}")' if "/" in interpreter else ")")


def _parcel(vm: VM, program: Path) -> Parcel:
    """A program for the guest's processor, with its libraries unless the guest has the very same."""
    elf = read_elf(program)
    machine = vm.guest(installing.machine)
    if not elf.runs_on(machine):
        raise UsageError(
            f"vm.install: {program} is a program for {elf.machine}, and the machine is {machine}; build it "
            "for that"
        )
    if not elf.loader:
        return Parcel(program)
    needed = libraries(program, elf.loader, os.environ.get("LD_LIBRARY_PATH", ""))
    if _are_there(vm, Path(elf.loader), list(needed.values())):
        return Parcel(program)
    files = {f"lib/{name}": path for name, path in needed.items()}
    return Parcel(program, {f"loader/{program.name}": Path(elf.loader), **files})


def _are_there(vm: VM, loader: Path, needed: list[Path]) -> bool:
    """Whether the guest's own loader finds the same libraries: it looks into its own folder by itself."""
    system = loader.resolve().parent
    if any(path.resolve().parent != system for path in needed):
        return False
    wanted = {str(path): installing.head(str(path)) for path in [loader, *needed]}
    return bool(vm.guest(installing.heads, list(wanted)) == wanted)


def _bring(vm: VM, parcel: Parcel, target: str) -> str:
    files = {parcel.inside: parcel.program, **parcel.files}
    if vm.guest(installing.begin, parcel.name, sum(path.stat().st_size for path in files.values())):
        for place, path in files.items():
            vm.put(path, f"{PLACE}/{parcel.name}/{place}", mode=0o755)
    vm.guest(installing.finish, parcel.name, parcel.inside, target, parcel.wrapper())
    return target
