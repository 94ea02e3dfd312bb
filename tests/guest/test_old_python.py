"""The guest's code runs on old Pythons, with the standard library alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_kernelfs.guest

OLDEST = (3, 8)
FILES = sorted(Path(pytest_kernelfs.guest.__file__).parent.glob("*.py"))
# Not in Python 3.8, though in the one that runs the tests.
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


def evaluated(tree: ast.AST) -> Iterator[ast.AST]:
    """All that is run: everything but annotations."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from evaluated(node)


def generic_alias(tree: ast.AST) -> Iterator[str]:
    """Names that can be subscripted from Python 3.9 on only, where they are."""
    plain = {"dict", "frozenset", "list", "set", "tuple", "type"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("collections", "collections.abc"):
            plain |= {name.asname or name.name for name in node.names}
    for node in evaluated(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in plain:
            yield f"{node.value.id} in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_type_is_subscripted_before_that_was_possible(path: Path) -> None:
    assert list(generic_alias(ast.parse(path.read_text()))) == []


def test_such_subscripts_are_seen() -> None:
    source = "from collections.abc import Callable\nRead = Callable[[], str]\nx: list[int] = []"
    assert list(generic_alias(ast.parse(source))) == ["Callable in line 2"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_imports_nothing_of_the_hosts_side(path: Path) -> None:
    allowed = {"execnet"} if path.stem == "conversation" else set()
    for name in imported(ast.parse(path.read_text())):
        top = name.partition(".")[0]
        if top == "pytest_kernelfs":
            assert name.startswith("pytest_kernelfs.guest")
        else:
            assert top in (sys.stdlib_module_names - TOO_NEW) | allowed, f"{path.name} imports {name}"
