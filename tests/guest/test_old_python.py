"""The guest's code runs on old Pythons, with the standard library alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_kernelfs.guest

OLDEST = (3, 7)
FILES = sorted(Path(pytest_kernelfs.guest.__file__).parent.glob("*.py"))
# Not in Python 3.7, though in the one that runs the tests.
TOO_NEW = {"graphlib", "tomllib", "zoneinfo"}


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield str(node.module)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_written_for_the_oldest_python(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=OLDEST)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_annotations_are_never_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    annotated = any(isinstance(node, (ast.FunctionDef, ast.AnnAssign)) for node in ast.walk(tree))
    assert not annotated or "__future__" in imported(tree)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_imports_nothing_of_the_hosts_side(path: Path) -> None:
    allowed = {"execnet"} if path.stem == "conversation" else set()
    for name in imported(ast.parse(path.read_text())):
        top = name.partition(".")[0]
        if top == "pytest_kernelfs":
            assert name.startswith("pytest_kernelfs.guest")
        else:
            assert top in (sys.stdlib_module_names - TOO_NEW) | allowed, f"{path.name} imports {name}"
