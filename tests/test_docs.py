"""What the documents say of the plugin is there, and what is there is in the documents."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import pytest_kernelfs
from pytest_kernelfs import config, fixtures, plugin

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CHECKER = ROOT / ".ci" / "check_links.py"
OPTIONS = [
    "--kernel",
    "--kernelfs-offline",
    "--kernelfs-require",
    "--kernelfs-allow-local",
    "--kernelfs-share",
    *(option.name for option in config.OPTIONS),
]
SETTINGS = [
    *("kernelfs_kernels", "kernelfs_offline", "kernelfs_require", "kernelfs_share"),
    *(option.ini for option in config.OPTIONS),
]
FIXTURES = [name for name in fixtures.__all__ if name != "kernelfs_resources"]
MARKERS = [re.split(r"\W", marker)[0] for marker in plugin._MARKERS]

if not CHECKER.exists():
    pytest.skip("the documents are checked in a checkout only", allow_module_level=True)

TEXT = "\n".join(document.read_text() for document in DOCUMENTS)


def named(document: Path) -> str:
    return str(document.relative_to(ROOT))


def load_checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_links", CHECKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(document: Path) -> str:
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, made as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.*?) *$", without_code(document), flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def code_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", LINKED, ids=named)
def test_links_lead_to_files(document: Path) -> None:
    assert load_checker().dead_links(document) == []


@pytest.mark.parametrize("document", LINKED, ids=named)
def test_anchors_lead_to_headings(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s:#]*)#([^)\s]+)\)", without_code(document))
    dead = [
        f"{path}#{anchor}"
        for path, anchor in links
        if anchor not in anchors(document.parent / path if path else document)
    ]
    assert dead == []


@pytest.mark.parametrize("name", [*OPTIONS, *SETTINGS])
def test_options_are_documented(name: str) -> None:
    assert re.search(rf"`{name}\b", TEXT)


def test_documented_options_exist() -> None:
    assert set(re.findall(r"--kernelfs-[a-z-]*[a-z]", TEXT)) <= set(OPTIONS)
    known = {*SETTINGS, *fixtures.__all__}
    assert {name for name in re.findall(r"`(kernelfs_[a-z_]+)`", TEXT) if name not in known} == set()


@pytest.mark.parametrize("name", [*FIXTURES, *pytest_kernelfs.__all__])
def test_fixtures_and_types_are_documented(name: str) -> None:
    assert re.search(rf"\b{name}\b", TEXT)


@pytest.mark.parametrize("name", MARKERS)
def test_markers_are_documented(name: str) -> None:
    assert f"@pytest.mark.{name}(" in TEXT


def test_documented_markers_exist() -> None:
    known = {*MARKERS, "parametrize", "vm", "network", "flaky"}
    assert set(re.findall(r"pytest\.mark\.(\w+)", TEXT)) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_examples_compile_and_import_what_exists(document: Path) -> None:
    for block in code_blocks(document):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "pytest_kernelfs":
                assert {alias.name for alias in node.names} <= set(pytest_kernelfs.__all__)
