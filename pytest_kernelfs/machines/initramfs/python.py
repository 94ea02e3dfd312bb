"""Lifts the running Python: interpreter, standard library as byte code, extension modules."""

from __future__ import annotations

import importlib.util
import marshal
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.initramfs.lift import add_with_symlinks, guest_path

# Nothing a test would run in a guest.
_LEFT_OUT = {
    "test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages",
    "dist-packages", "__pycache__", "pydoc_data", "distutils", "venv", "turtle.py", "__phello__", "_pyrepl",
}  # fmt: skip
_LEFT_OUT_STARTS = ("config-", "_test", "_tkinter", "xx", "_ctypes_test")


def interpreter() -> Path:
    """The real program behind ``sys.executable``, outside of any virtual environment."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib", vars=_base_variables()))


def shared_library() -> list[Path]:
    """libpython, if the interpreter does not contain it."""
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    path = Path(str(folder)) / str(name)
    return [path] if path.suffix == ".so" and path.exists() else []


def extension_modules() -> list[Path]:
    """The extension modules of the standard library."""
    return [path for path in _members(standard_library() / "lib-dynload") if path.suffix == ".so"]


def add_python(archive: CpioWriter) -> None:
    """Add the interpreter at its own path and as /usr/bin/python3, with its library.

    Modules go in as byte code beside no source: half the size, and nothing is compiled in the guest.
    """
    program = interpreter()
    add_with_symlinks(archive, program)
    library = standard_library()
    for path in _members(library):
        if path.suffix == ".py":
            relative = path.relative_to(library)
            archive.file(guest_path(path.with_suffix(".pyc")), byte_code(path, str(relative)))
        elif path.suffix == ".so" or path.name.startswith("_sysconfigdata"):
            archive.copy(guest_path(path), path)
    for link in ("usr/bin/python3", "usr/bin/python"):
        archive.symlink(link, f"/{guest_path(program)}")


def byte_code(path: Path, shown_as: str) -> bytes:
    """The content of a .pyc file that is loaded without asking for its source (PEP 552, unchecked hash)."""
    source = path.read_bytes()
    code = compile(source, shown_as, "exec", dont_inherit=True, optimize=0)
    try:
        # Versions above 2 mark shared objects by reference counts, which differ from run to run.
        body = marshal.dumps(code, 2)
    except ValueError:
        body = marshal.dumps(code)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source) + body


def _members(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in _LEFT_OUT or entry.name.startswith(_LEFT_OUT_STARTS):
            continue
        if entry.is_dir():
            yield from _members(entry)
        else:
            yield entry


def _base_variables() -> dict[str, str]:
    return {"base": sys.base_prefix, "installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}
