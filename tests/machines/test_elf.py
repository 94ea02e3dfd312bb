"""What a program says of itself, and the libraries it is loaded with."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.elf import Elf, libraries, read_elf

Build = Callable[..., Path]
SH = Path("/bin/sh").resolve()


def header(machine: int, *, bits: int = 64, order: str = "<", kind: int = 3, loader: bytes = b"") -> bytes:
    """The start of a program with one segment, which names the loader."""
    start = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    segment_kind = 3 if loader else 1
    if bits == 64:
        start += struct.pack(f"{order}HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        start += struct.pack(f"{order}IIQQQQQQ", segment_kind, 4, 120, 0, 0, len(loader), len(loader), 1)
    else:
        start += struct.pack(f"{order}HHIIIIIHHHHHH", kind, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        start += struct.pack(f"{order}IIIIIIII", segment_kind, 84, 0, 0, len(loader), len(loader), 4, 1)
    return start + loader


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (header(62), Elf("x86_64", "")),
        (header(62, kind=2, loader=b"/lib64/ld.so\0"), Elf("x86_64", "/lib64/ld.so")),
        (header(183, loader=b"/lib/ld-musl-aarch64.so.1\0"), Elf("aarch64", "/lib/ld-musl-aarch64.so.1")),
        (header(22, order=">", loader=b"/lib/ld64.so.1\0"), Elf("s390x", "/lib/ld64.so.1")),
        (header(3, bits=32, loader=b"/lib/ld-linux.so.2\0"), Elf("i686", "/lib/ld-linux.so.2")),
        (header(4711), Elf("processor number 4711, 64 bits", "")),
    ],
)
def test_what_is_read(tmp_path: Path, content: bytes, expected: Elf) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    assert read_elf(path) == expected


@pytest.mark.parametrize("content", [header(62)[:30], header(62)[:66], b"\x7fELF"])
def test_what_is_cut_short(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "program").write_bytes(content)
    with pytest.raises(UsageError, match="begins like a program, but is cut short or damaged"):
        read_elf(tmp_path / "program")


def test_an_object_file(tmp_path: Path) -> None:
    (tmp_path / "a.o").write_bytes(header(62, kind=1))
    with pytest.raises(UsageError, match=r"a\.o is an object file, no program; link it first"):
        read_elf(tmp_path / "a.o")


def test_which_machines_run_it() -> None:
    assert Elf("i686", "").runs_on("x86_64")
    assert Elf("x86_64", "").runs_on("x86_64")
    assert not Elf("x86_64", "").runs_on("aarch64")
    assert not Elf("x86_64", "").runs_on("i686")


def test_the_programs_of_this_host() -> None:
    elf = read_elf(SH)
    assert elf.runs_on(os.uname().machine)
    found = libraries(SH, elf.loader, "")
    assert all(path.is_file() for path in found.values())
    assert Path(elf.loader).name not in found
    assert any(name.startswith("libc.") for name in found)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Compile C, if this host can."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler on this host")

    def build(name: str, source: str, *options: str) -> Path:
        target = tmp_path / name
        subprocess.run(
            [compiler, "-x", "c", "-", "-o", str(target), "-L", str(tmp_path), *options],
            input=source,
            text=True,
            check=True,
        )
        return target

    return build


def test_libraries_of_the_project_are_found_where_the_program_is_told_to(
    build: Build, tmp_path: Path
) -> None:
    library = build(
        "libanswer.so.1", "int answer(void) { return 42; }", "-shared", "-fPIC", "-Wl,-soname,libanswer.so.1"
    )
    (tmp_path / "libanswer.so").symlink_to(library)
    source = "int answer(void); int main(void) { return answer(); }"
    lost = build("lost", source, "-lanswer")
    loader = read_elf(lost).loader
    with pytest.raises(
        UsageError, match=r"lost needs the shared library libanswer\.so\.1, which is not found on"
    ):
        libraries(lost, loader, "")
    assert libraries(lost, loader, str(tmp_path))["libanswer.so.1"] == library
    beside = build("beside", source, "-lanswer", "-Wl,-rpath,$ORIGIN")
    assert libraries(beside, loader, "")["libanswer.so.1"] == library


def test_a_library_that_was_linked_by_its_path(build: Build) -> None:
    library = build("libanswer.so", "int answer(void) { return 42; }", "-shared", "-fPIC")
    source = "int answer(void); int main(void) { return answer(); }"
    program = build("program", source, "-x", "none", str(library))
    with pytest.raises(
        UsageError, match=r"was linked with .*/libanswer\.so by its path, so it cannot use a copy"
    ):
        libraries(program, read_elf(program).loader, "")


def test_a_static_program_has_no_loader(build: Build) -> None:
    assert read_elf(build("program", "int main(void) { return 0; }", "-static")).loader == ""


def test_a_loader_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is loaded by /lib/ld-nowhere\.so, which is not on this host"):
        libraries(tmp_path / "program", "/lib/ld-nowhere.so", "")


def test_what_the_loader_will_not_have(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(header(62, loader=b"/lib64/ld.so\0"))
    with pytest.raises(UsageError, match=r"the libraries of .* cannot be found: "):
        libraries(path, read_elf(Path(sys.executable).resolve()).loader, "")


def test_a_loader_that_cannot_be_started(tmp_path: Path) -> None:
    loader = tmp_path / "ld.so"
    loader.write_bytes(b"\x7fELF no more than that")
    loader.chmod(0o755)
    with pytest.raises(UsageError, match=r"ld\.so of .*program does not list its libraries: .*Exec format"):
        libraries(tmp_path / "program", str(loader), "")
