"""``kernelfs shell``, in machines that are local processes; for one with a terminal see tests/vm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from tests.cli.conftest import Kernelfs, LocalProvider, calls

Capture = pytest.CaptureFixture[bytes]


def test_without_a_terminal_lines_are_commands(
    kernelfs: Kernelfs,
    provider: LocalProvider,
    capfdbinary: Capture,
    feed: Callable[[bytes], None],
    tmp_path: Path,
) -> None:
    feed(b"echo one\necho two >&2\nexit 6\n")
    result = kernelfs("shell", "6.1")
    assert (result.exit_code, result.output) == (6, "")
    assert capfdbinary.readouterr() == (b"one\n", b"two\n")
    assert calls(provider.machines[0])[1] == str(tmp_path)


def test_it_is_one_machine(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    provider.versions = ["5.10.257", "6.1.176"]
    result = kernelfs("shell", "5.10,6.1")
    assert result.exit_code == 125
    assert result.stderr == "kernelfs: error: 5.10,6.1 names 2 kernels; name one\n"
    assert provider.machines == []


def test_a_machine_that_does_not_start_is_told(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    provider.failures["6.1.176"] = InfrastructureError("it does not boot")
    result = kernelfs("shell")
    assert (result.exit_code, result.stderr) == (125, "kernelfs: error: it does not boot\n")
