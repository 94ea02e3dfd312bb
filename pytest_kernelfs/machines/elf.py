"""Reads what a program is: for which processor, and what loads it."""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.errors import UsageError

MAGIC = b"\x7fELF"
_LISTING_S = 30.0
# elf.h: e_machine -> what `uname -m` calls such a machine.
_MACHINES = {
    (3, 32): "i686",
    (8, 32): "mips",
    (20, 32): "ppc",
    (21, 64): "ppc64le",
    (22, 64): "s390x",
    (40, 32): "armv7l",
    (62, 32): "x32",
    (62, 64): "x86_64",
    (183, 64): "aarch64",
    (243, 32): "riscv32",
    (243, 64): "riscv64",
    (258, 64): "loongarch64",
}
# A kernel for the first runs programs for the second as well.
_ALSO_RUNS = {("x86_64", "i686"), ("aarch64", "armv7l"), ("armv8l", "armv7l")}
_TYPE_PROGRAM, _TYPE_SHARED = 2, 3
_SEGMENT_INTERPRETER = 3

_FOUND = re.compile(r"^\s+(\S+) => (/.+) \(0x", re.MULTILINE)
_BY_PATH = re.compile(r"^\s+(/.+) \(0x", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found|Error loading shared library ([^:]+):", re.MULTILINE)
_LOADED_BY_NAME = "libgcc_s.so.1"


@dataclass(frozen=True)
class Elf:
    """``machine`` as in `uname -m`; ``loader`` is "" for a static program."""

    machine: str
    loader: str

    def runs_on(self, machine: str) -> bool:
        return machine == self.machine or (machine, self.machine) in _ALSO_RUNS


def read_elf(path: Path) -> Elf:
    """Raises: UsageError if it is no program; OSError."""
    with path.open("rb") as file:
        start = file.read(64)
        try:
            order = "<" if start[5] == 1 else ">"
            bits = 64 if start[4] == 2 else 32
            kind, number = struct.unpack_from(f"{order}HH", start, 16)
            table = struct.unpack_from(
                f"{order}Q" if bits == 64 else f"{order}I", start, 32 if bits == 64 else 28
            )[0]
            size, count = struct.unpack_from(f"{order}HH", start, 54 if bits == 64 else 42)
            if kind not in (_TYPE_PROGRAM, _TYPE_SHARED):
                raise UsageError(f"vm.install: {path} is an object file, no program; link it first")
            file.seek(table)
            segments = file.read(size * count)
            loader = ""
            for index in range(count):
                segment = segments[index * size : (index + 1) * size]
                if struct.unpack_from(f"{order}I", segment)[0] == _SEGMENT_INTERPRETER:
                    form = f"{order}8xQ16xQ" if bits == 64 else f"{order}4xI8xI"
                    offset, length = struct.unpack_from(form, segment)
                    file.seek(offset)
                    loader = file.read(length).rstrip(b"\0").decode()
        except (struct.error, IndexError, UnicodeDecodeError):
            raise UsageError(
                f"vm.install: {path} begins like a program, but is cut short or damaged"
            ) from None
    return Elf(_MACHINES.get((number, bits), f"processor number {number}, {bits} bits"), loader)


def libraries(path: Path, loader: str, search: str) -> dict[str, Path]:
    """The shared libraries that a program is loaded with, by the name it asks for.

    ``search`` is LD_LIBRARY_PATH. Raises: UsageError if one is missing.
    """
    if not Path(loader).exists():
        raise UsageError(
            f"vm.install: {path} is loaded by {loader}, which is not on this host, so its libraries cannot "
            "be found; link it statically, or build it for this host"
        )
    listing = ["--list"] if "musl" in loader else []
    environment = {"LC_ALL": "C", "LD_TRACE_LOADED_OBJECTS": "1"}
    if search:
        environment["LD_LIBRARY_PATH"] = search
    try:
        done = subprocess.run(
            [loader, *listing, str(path)],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=_LISTING_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"vm.install: the loader {loader} of {path} does not list its libraries: {error}"
        ) from None
    missing = _MISSING.search(done.stdout + done.stderr)
    if missing:
        raise UsageError(
            f"vm.install: {path} needs the shared library {missing[1] or missing[2]}, which is not found on "
            "this host; set LD_LIBRARY_PATH for pytest as for the program"
        )
    if done.returncode:
        raise UsageError(
            f"vm.install: the libraries of {path} cannot be found: {(done.stderr or done.stdout).strip()}"
        )
    found = {name: Path(place) for name, place in _FOUND.findall(done.stdout)}
    for place in _BY_PATH.findall(done.stdout):
        if place != loader:
            raise UsageError(
                f"vm.install: {path} was linked with {place} by its path, so it cannot use a copy elsewhere; "
                "give that library a soname"
            )
    return _without_loader(found, loader)


def _without_loader(found: dict[str, Path], loader: str) -> dict[str, Path]:
    """Those to be brought beside the loader, with what glibc loads by its name to end threads."""
    kept = {name: place for name, place in found.items() if Path(name).name != Path(loader).name}
    for place in {place.parent for place in kept.values()}:
        if (place / _LOADED_BY_NAME).exists():
            kept.setdefault(_LOADED_BY_NAME, place / _LOADED_BY_NAME)
    return kept
