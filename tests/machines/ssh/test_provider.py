"""What the provider refuses before it connects, and how often it tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import ProviderUnavailable, Unsupported, UsageError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.kernels.version import KernelVersion
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.ssh import provider as provider_module
from pytest_kernelfs.machines.ssh.provider import SshProvider
from pytest_kernelfs.machines.ssh.transport import SshTransport

_KERNEL = Kernel(KernelVersion.parse("6.12.1"), "6.12.1-test", "ssh: box", "0" * 64, None)
_SPEC = MachineSpec(1 << 30, 1)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attempts to connect, each of which fails."""
    made: list[str] = []

    def fail(transport: SshTransport) -> None:
        made.append(transport.destination)
        raise ProviderUnavailable("cannot reach box over ssh")

    monkeypatch.setattr(SshTransport, "open", fail)
    return made


def _provider(tmp_path: Path, destination: str = "box", config: Path | None = None) -> SshProvider:
    return SshProvider(Settings(tmp_path), destination, config)


def test_a_destination_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name the machine with --kernelfs-ssh"):
        _provider(tmp_path, "")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--kernelfs-ssh-config: there is no file .*/none"):
        _provider(tmp_path, "box", tmp_path / "none")


def test_a_machine_that_cannot_be_reached_is_tried_once(tmp_path: Path, attempts: list[str]) -> None:
    provider = _provider(tmp_path)
    for ask in (provider.own_kernel, provider.describe, lambda: provider.start(_KERNEL, _SPEC)):
        with pytest.raises(ProviderUnavailable, match="cannot reach box"):
            ask()
    assert attempts == ["box"]
    provider.close()


def test_a_kernel_that_runs_takes_no_boot_parameters(tmp_path: Path, attempts: list[str]) -> None:
    with pytest.raises(Unsupported, match="cannot boot it with the parameters 'nokaslr'"):
        _provider(tmp_path).start(_KERNEL, MachineSpec(1 << 30, 1, "nokaslr"))
    assert attempts == []


def test_what_it_cannot_do_skips_tests(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="the provider ssh cannot save machines"):
        _provider(tmp_path).start_writable(_KERNEL, _SPEC)


@pytest.fixture
def comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the next attempts to connect succeed; the last of them holds on."""
    answers = [True]

    def attempt(transport: SshTransport) -> None:
        there = answers.pop(0) if len(answers) > 1 else answers[0]
        if not there:
            raise ProviderUnavailable("cannot reach box over ssh")

    monkeypatch.setattr(SshTransport, "open", attempt)
    monkeypatch.setattr(provider_module, "_RETRY_S", 0.01)
    return answers


def test_a_machine_that_vanished_is_waited_for(tmp_path: Path, comes_and_goes: list[bool]) -> None:
    provider = SshProvider(Settings(tmp_path, boot_timeout=600), "box")
    provider._open()
    comes_and_goes[:] = [False, False, True]
    provider._open()
    assert comes_and_goes == [True], "it was asked until it was there"


def test_a_machine_that_does_not_come_back_is_given_up(tmp_path: Path, comes_and_goes: list[bool]) -> None:
    provider = SshProvider(Settings(tmp_path, boot_timeout=0.05), "box")
    provider._open()
    comes_and_goes[:] = [False]
    for _ in range(2):
        with pytest.raises(ProviderUnavailable, match=r"box vanished .* within 0\.05 s .*: cannot reach box"):
            provider._open()
    comes_and_goes[:] = [True]
    with pytest.raises(ProviderUnavailable, match="vanished"):
        provider._open()
