"""The lifted Python: byte code that loads without its source, and is the same in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kernelfs.machines.initramfs import python

SOURCE = '''
"""A module."""
import os

NAMES = ("b", "a", "c")

def known(name):
    """Whether it is known."""
    return name in {"one", "two", "three", "four", "five"}

class Thing:
    value: int = 1 << 40
    text = "käse"
'''

DIGEST = """
import hashlib, sys
from pathlib import Path
from pytest_kernelfs.machines.initramfs import python
print(hashlib.sha256(python.byte_code(Path(sys.argv[1]), "shown.py")).hexdigest())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "lifted.py"
    path.write_text(SOURCE)
    return path


def in_python(program: str, *arguments: str, seed: int = 0) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout.strip()


def test_byte_code_is_loaded_without_its_source(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "lifted.pyc").write_bytes(python.byte_code(source, "lifted.py"))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import lifted; "
        "print(lifted.__file__, lifted.known('two'), lifted.Thing.text, lifted.known.__doc__)"
    )
    assert in_python(program, str(folder)) == f"{folder}/lifted.pyc True käse Whether it is known."


def test_a_traceback_shows_the_name_that_was_given(source: Path) -> None:
    assert b"shown.py" in python.byte_code(source, "shown.py")
    assert str(source).encode() not in python.byte_code(source, "shown.py")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sets in constants are marshalled in hash order")
def test_byte_code_is_the_same_in_every_process(source: Path) -> None:
    assert in_python(DIGEST, str(source), seed=1) == in_python(DIGEST, str(source), seed=2)


def test_other_source_gives_other_byte_code(source: Path) -> None:
    before = python.byte_code(source, "lifted.py")
    source.write_text(SOURCE.replace("1 << 40", "1 << 41"))
    assert python.byte_code(source, "lifted.py") != before


def test_the_interpreter_is_the_real_one_outside_of_any_environment() -> None:
    program = python.interpreter()
    assert not program.is_symlink()
    assert program.is_relative_to(Path(sys.base_prefix).resolve())
    with program.open("rb") as file:
        assert file.read(4) == b"\x7fELF"


def test_the_standard_library_is_that_of_the_running_python() -> None:
    assert (python.standard_library() / "os.py").samefile(os.__file__)


def test_extension_modules_are_those_a_test_may_need() -> None:
    modules = python.extension_modules()
    assert all(path.name.endswith(".so") for path in modules)
    assert not [path for path in modules if path.name.startswith(("_test", "_tkinter"))]
