"""Functions that run in the guest and use modules of the project."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

from pytest_kernelfs import VM, sizes
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.sizes import parse_size

pytestmark = pytest.mark.usefixtures("newest_only")

FILES = {
    "storekit/__init__.py": "from .blocks import Block, count\n",
    "storekit/blocks.py": """
import os
import re
from pytest_kernelfs import VM
from storekit.deep import limits

NAME = re.compile("[a-z]+")

class Block:
    def __init__(self, size):
        self.size = size * limits.UNIT

def count(path):
    return NAME.match("abc").end(), Block(len(os.listdir(path))).size

def on(vm: VM, path: str):
    return vm.call(count, path)

def fail():
    raise Block.Missing
""",
    "storekit/deep/limits.py": "UNIT = 512\n",
}
storekit = ModuleType("storekit")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / f"compiled{EXTENSION_SUFFIXES[0]}").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "storekit", importlib.import_module("storekit"))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "storekit"]:
        del sys.modules[name]


def _blocks(path: str) -> int:
    return (
        int(storekit.Block(len(list(Path(path).iterdir()))).size) + parse_size("1K") + sizes.parse_size("2K")
    )


def _late() -> int:
    from storekit.deep.limits import UNIT  # type: ignore[import-not-found]

    return int(UNIT)


def _machine_code() -> None:
    import compiled  # type: ignore[import-not-found]  # noqa: F401


def _fail() -> None:
    storekit.blocks.fail()


def test_modules_come_with_what_they_import(vm: VM) -> None:
    vm.run("cd /tmp; mkdir -p three/a three/b three/c", check=True)
    assert vm.call(_blocks, "/tmp/three") == 3 * 512 + 3072
    assert vm.call(_late) == 512


def test_functions_of_the_project_run_in_their_own_module(vm: VM) -> None:
    vm.run("mkdir -p /tmp/one/a", check=True)
    assert vm.call(storekit.count, "/tmp/one") == (3, 512)
    assert storekit.blocks.on(vm, "/tmp/one") == (3, 512)


def test_machine_code_is_refused(vm: VM, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GuestCommandError, match="the module compiled is an extension in machine code"):
        vm.call(_machine_code)
    monkeypatch.setitem(globals(), "storekit", ModuleType("compiled"))
    with pytest.raises(
        UsageError, match=f"an extension in machine code .{project}.*the function _fail uses it"
    ):
        vm.call(_fail)


def test_tracebacks_show_the_projects_lines(vm: VM, project: Path) -> None:
    with pytest.raises(GuestCommandError, match="AttributeError") as caught:
        vm.call(_fail)
    assert f'File "{project}/storekit/blocks.py", line 20, in fail\n    raise Block.Missing' in str(
        caught.value
    )
