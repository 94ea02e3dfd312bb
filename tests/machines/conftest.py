"""What tests of machines share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.news import heard_by


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR of the test's own; short, because a base folder in a long one goes to /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="kfs-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def news() -> Iterator[list[str]]:
    """What the run says of itself."""
    told: list[str] = []
    with heard_by(told.append):
        yield told
