"""The provider that docs/providers.md shows, with a command that leads to this host itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.vm.inner import InnerRun
from tests.vm.providers.here import alone_on_this_host

pytestmark = pytest.mark.usefixtures("newest_only")

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
TESTS = """
def test_kernel(vm, kernel):
    assert vm.run(["uname", "-r"], check=True).stdout.strip() == kernel.release

def test_mount(vm, tmpfs):
    assert vm.run(["mountpoint", "-q", tmpfs.path]).succeeded

def test_wrong(vm):
    vm.run(["false"], check=True)

def test_power(vm):
    vm.power_cut()
"""


def _conftest() -> str:
    """The example; instead of another machine's root it is given ours, in namespaces."""
    text = DOCUMENT.read_text()
    start = text.index("```python\n") + len("```python\n")
    example = text[start : text.index("```", start)]
    command = '["incus", "exec", name, "--"]'
    assert command in example
    return example.replace(command, '["env"], tenancy=Tenancy(namespaces=True)').replace(
        "import CommandProvider,", "import CommandProvider, Tenancy,"
    )


def test_the_example_of_the_documents_runs_tests(inner: InnerRun) -> None:
    (inner.folder / "conftest.py").write_text(_conftest())
    inner.write(TESTS)
    with alone_on_this_host():
        code, output = inner.run("--kernelfs-provider=incus", "-rs", kernel=os.uname().release)
    assert code == 1, output
    assert "1 failed, 2 passed, 1 skipped" in output
    assert "the provider incus cannot cut the power of its machines" in output
    assert f"kernelfs: incus: env, kernel {os.uname().release}" in output
