"""A Vagrant that does what a test says, in a shell script."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs import tools


@pytest.fixture
def fake_vagrant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Puts a program called vagrant into PATH; gives its folder, with a file of what it was called with."""
    pytest.importorskip("vagrant")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(script: str) -> Path:
        program = folder / "vagrant"
        program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/said\n{script}\n')
        program.chmod(0o755)
        tools.find.cache_clear()
        return folder

    yield write
    tools.find.cache_clear()
