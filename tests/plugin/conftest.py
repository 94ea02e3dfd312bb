"""Whole runs of pytest with the plugin, on kernels and machines that are fakes."""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

import pytest

import pytest_kernelfs
from pytest_kernelfs import plugin

from . import fakes

# pytester forgets the modules that a run imported; so that no class exists twice, all are there before.
for module in pkgutil.walk_packages(pytest_kernelfs.__path__, "pytest_kernelfs."):
    importlib.import_module(module.name)

BOTH = ("--kernel", "5.10", "--kernel", "6.1")


def read_events(log: Path, kind: str = "") -> list[str]:
    """What was noted, in order; only events that begin with that word, without it."""
    lines = log.read_text().splitlines()
    return [line.removeprefix(f"{kind} ") for line in lines if not kind or line.startswith(f"{kind} ")]


def environment(folder: Path) -> dict[str, str]:
    """What a run in that folder finds in its environment, besides the rest."""
    paths = [str(Path(__file__).parents[2]), str(Path(pytest_kernelfs.__file__).parent.parent)]
    return {
        fakes.LOG: str(folder / "events"),
        "KERNELFS_CACHE": str(folder / "cache"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": os.pathsep.join(paths),
    }


class Runner:
    """Runs pytest on the files of a test."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self._log = pytester.path / "events"
        self._log.touch()

    def __call__(self, source: str, *arguments: str) -> pytest.RunResult:
        """Run with the test file ``source``, in this process."""
        self._pytester.makepyfile(test_it=source)
        return self._pytester.runpytest_inprocess("-W", "error", *arguments, plugins=[plugin])

    def apart(self, source: str, *arguments: str) -> pytest.RunResult:
        """Run in processes of their own."""
        self._pytester.makepyfile(test_it=source)
        return self._pytester.runpytest_subprocess("-p", "tests.plugin.installed", *arguments, timeout=300)

    def events(self, kind: str = "") -> list[str]:
        """See ``read_events``."""
        return read_events(self._log, kind)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    fakes.install(monkeypatch.setattr)
    for name, value in environment(pytester.path).items():
        monkeypatch.setenv(name, value)
    return Runner(pytester)
