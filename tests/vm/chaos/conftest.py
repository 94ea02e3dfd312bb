"""What the tests here add to ``inner``: its boots, counted, and the command that tidies up after it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.vm.inner import InnerRun

Gc = Callable[..., str]
Boots = Callable[[], int]


@pytest.fixture
def gc(inner: InnerRun) -> Gc:
    """Runs ``kernelfs gc`` on the cache and the machines of ``inner``; gives what it printed."""

    def run(*options: str) -> str:
        command = [sys.executable, "-m", "pytest_kernelfs.cli", "--cache", str(inner.cache), "gc", *options]
        environment = {**os.environ, "TMPDIR": str(inner.folder)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def boots(inner: InnerRun, monkeypatch: pytest.MonkeyPatch) -> Boots:
    """Counts the machines of ``inner`` that booted; forks are started without an initial ramdisk."""
    original = shutil.which("qemu-system-x86_64")
    log = inner.folder / "boots"
    log.touch()
    programs = inner.folder / "bin"
    programs.mkdir()
    wrapper = programs / "qemu-system-x86_64"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *" -initrd "*) echo boot >> {log};; esac\nexec {original} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return lambda: len(log.read_text().splitlines())
