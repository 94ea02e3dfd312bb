"""Runs the examples in the documents: each Python block with a test in it is a module of its own."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
# The tutorial is left out: it shows what a failure looks like.
MORE = tuple(
    DOCS / f"{name}.md" for name in ("fixtures", "markers", "sharing", "testinfra", "providers/images")
)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".md" and (file_path.is_relative_to(DOCS / "resources") or file_path in MORE):
        return Document.from_parent(parent, path=file_path)
    return None


class Document(pytest.File):
    """A document with examples."""

    def collect(self) -> Iterator[pytest.Collector]:
        text = self.path.read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start(1))
            if "def test_" in block[1]:
                yield Example.of(self, line, block[1])


class Example(pytest.Module):
    """One block. Its lines are numbered as in the document, so that tracebacks and sources are right."""

    source = ""
    line = 0

    @classmethod
    def of(cls, document: Document, line: int, source: str) -> Example:
        """The block that follows line number ``line`` of the document."""
        example: Example = cls.from_parent(document, path=document.path)
        example.name = f"line{line + 1}"
        example._nodeid = f"{document.nodeid}::{example.name}"  # type: ignore[attr-defined]
        example.source, example.line = source, line
        example.add_marker(pytest.mark.vm)
        return example

    def _getobj(self) -> types.ModuleType:
        module = types.ModuleType(f"{self.path.stem}_{self.name}")
        module.__file__ = str(self.path)
        exec(compile("\n" * self.line + self.source, str(self.path), "exec"), vars(module))
        return module


def in_the_documents_order(items: list[pytest.Item]) -> None:
    """Put the tests of each example in their order again: some go on where the one before left off."""
    places: dict[tuple[pytest.Item | pytest.Collector, object], list[int]] = {}
    for index, item in enumerate(items):
        if isinstance(item.parent, Example):
            kernel = getattr(item, "callspec", None) and item.callspec.params.get("kernel")  # type: ignore[attr-defined]
            places.setdefault((item.parent, kernel), []).append(index)
    for indices in places.values():
        tests = sorted((items[index] for index in indices), key=lambda item: item.reportinfo()[1] or 0)
        for index, test in zip(indices, tests, strict=True):
            items[index] = test
