"""The examples show what they say, each in a run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.fixtures.machines import RUN
from tests.vm.inner import InnerRun

_FOLDER = Path(__file__).parents[2] / "examples"
_PATIENCE_S = 1800.0  # against a hang alone: how long an example takes is the host's matter

# What some show of each kernel is tested elsewhere; other providers run overlay_umount on the newest.
EXAMPLES = [
    pytest.param("container_health", marks=pytest.mark.kernel("<7.0")),
    pytest.param("overlay_umount", marks=pytest.mark.kernel("<7.0")),
    pytest.param("network_stalls", marks=pytest.mark.kernel(">=7.0")),
    pytest.param("checkpoint", marks=pytest.mark.kernel(">=7.0")),
    pytest.param("storage_backends", marks=pytest.mark.kernel(">=7.0")),
]


def bring(inner: InnerRun, request: pytest.FixtureRequest, name: str) -> None:
    inner.cache = request.config.stash[RUN].config.cache_root  # which has the templates of machines
    inner.bring(_FOLDER / name)


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_holds(inner: InnerRun, request: pytest.FixtureRequest, name: str) -> None:
    bring(inner, request, name)
    code, output = inner.run("-rA", "-o", "xfail_strict=true", timeout=_PATIENCE_S)
    assert code == 0, output
    assert " passed" in output


@pytest.mark.usefixtures("newest_only")
def test_a_cell_that_froze_is_told_of(inner: InnerRun, request: pytest.FixtureRequest) -> None:
    """What is expected to fail, shown: the stack is in the report, and what the machine told is kept."""
    bring(inner, request, "container_health")
    code, output = inner.run("-k", "that_froze", "--runxfail", timeout=_PATIENCE_S)
    assert code == 1, output
    assert "1 task has been in uninterruptible sleep" in output
    (folder,) = (inner.folder / "kernelfs-artifacts").glob("*that_froze*/*")
    assert "ovl_" in (folder / "failure.txt").read_text()
