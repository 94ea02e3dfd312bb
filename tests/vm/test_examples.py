"""The examples show what they say, each in a run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.fixtures.machines import RUN
from tests.vm.inner import InnerRun

_FOLDER = Path(__file__).parents[2] / "examples"
_PATIENCE_S = 1800.0  # against a hang alone: how long an example takes is the host's matter

# Those that no other test runs.
EXAMPLES: list[str] = []


@pytest.mark.usefixtures("oldest_or_newest")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_holds(inner: InnerRun, request: pytest.FixtureRequest, name: str) -> None:
    inner.cache = request.config.stash[RUN].config.cache_root  # which has the templates of machines
    inner.bring(_FOLDER / name)
    code, output = inner.run("-rA", timeout=_PATIENCE_S)
    assert code == 0, output
    assert " passed" in output
