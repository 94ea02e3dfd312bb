"""Runs the examples in the documents: each Python block with a test in it is a module of its own."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".md" and file_path.is_relative_to(DOCS):
        return Document.from_parent(parent, path=file_path)
    return None


class Document(pytest.File):
    """A document with examples."""

    def collect(self) -> Iterator[pytest.Collector]:
        text = self.path.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start(1))
            if "def test_" in block[1]:
                name = f"line{line + 1}"
                yield Example.from_parent(self, path=self.path, name=name, source=block[1], line=line)


class Example(pytest.Module):
    """One block. Its lines are numbered as in the document, so that tracebacks and sources are right."""

    def __init__(self, *, source: str, line: int, name: str, parent: pytest.Collector, path: Path) -> None:
        super().__init__(path=path, parent=parent)
        self.name = name
        self._nodeid = f"{parent.nodeid}::{name}"
        self._source = source
        self._line = line
        self.add_marker(pytest.mark.vm)

    def _getobj(self) -> types.ModuleType:
        module = types.ModuleType(f"{self.path.stem}_{self.name}")
        module.__file__ = str(self.path)
        exec(compile("\n" * self._line + self._source, str(self.path), "exec"), vars(module))
        return module
