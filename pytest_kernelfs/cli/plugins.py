"""Machine providers of other plugins of pytest, and of the conftest.py where we are called."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, final

import pytest

from pytest_kernelfs import plugin as ours
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.providers import NAMES

if TYPE_CHECKING:
    from pytest_kernelfs.machines.machine import MakeProvider


def offered(name: str) -> Sequence[Mapping[str, MakeProvider]]:
    """What is offered besides our own, for a ``name`` that none of ours has.

    pytest itself finds it, as it would here: by entry points, the ini file, PYTEST_ADDOPTS, and conftest.py.
    It stops before it is configured, collects anything or says a word.

    Raises: UsageError if its plugins cannot be loaded, or do not understand their options.
    """
    collector = _Collector()
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            # With the capturing of pytest our own streams would be others for as long as it runs.
            pytest.main(["--capture=no"], plugins=[collector])
    except Exception as error:  # whatever a plugin raises as it is imported
        raise _unloadable(name, f"{type(error).__name__}: {error}") from error
    if collector.offered is None:
        raise _unloadable(name, said.getvalue())
    return collector.offered


@final
class _Collector:
    """A plugin that asks the others, instead of running any test."""

    offered: Sequence[Mapping[str, MakeProvider]] | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> int:
        # Ours offers what needs no pytest, and would ask for a run.
        others: Any = config.pluginmanager.subset_hook_caller("pytest_kernelfs_providers", [ours])
        self.offered = others(config=config)
        return 0


def _unloadable(name: str, said: str) -> UsageError:
    lines = [line.removeprefix("E ").strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error: " in line.lower()]
    reason = [*lines, *errors][-1] if lines else "pytest did not say why"
    return UsageError(
        f"--kernelfs-provider: {name!r} is none of {', '.join(NAMES)}, and the plugins of pytest, which may "
        f"have it, cannot be loaded here: {reason}"
    )
