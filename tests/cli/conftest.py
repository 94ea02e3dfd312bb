"""Machines for commands: local processes that run the guest's own code."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pytest_kernelfs import providers
from pytest_kernelfs.cli import machines as cli_machines
from pytest_kernelfs.cli import main
from pytest_kernelfs.errors import KernelfsError, KernelPanic
from pytest_kernelfs.kernels import Candidate, Kernel
from pytest_kernelfs.machines.channel import GuestExchange
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.run import Run
from tests.fake_machine import FakeMachine
from tests.local_guest import converse

Kernelfs = Callable[..., Result]


class LocalMachine(FakeMachine):
    """Commands run on this host; what else it is asked for is noted."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self._channel, self.guest = converse()

    def exchange(self, function: Callable[..., Any], *args: Any) -> GuestExchange:
        self.calls.append((function.__name__, args))
        return self._channel.exchange(function, args, lambda seen: KernelPanic(f"it panicked ({seen})"))

    def destroy(self) -> None:
        super().destroy()
        self._channel.close()
        self.guest.kill()
        self.guest.wait()


class LocalProvider(PlainProvider):
    """Notes what it is asked for; ``versions`` are of the kernels that there are."""

    name = "fake"

    def __init__(self) -> None:
        self.versions = ["6.1.176"]
        self.failures: dict[str, KernelfsError] = {}
        self.machines: list[LocalMachine] = []
        self.specs: list[MachineSpec] = []
        self.settings: Settings | None = None
        self.closed = False

    def __call__(self, settings: Settings) -> LocalProvider:
        self.settings = settings
        return self

    def describe(self) -> str:
        return "fake"

    def start(self, kernel: Kernel, spec: MachineSpec) -> LocalMachine:
        if str(kernel.version) in self.failures:
            raise self.failures[str(kernel.version)]
        self.specs.append(spec)
        self.machines.append(LocalMachine(str(kernel.version)))
        return self.machines[-1]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalProvider]:
    provider = LocalProvider()

    def resolve(run: Run) -> list[Candidate]:
        return [_candidate(version) for version in provider.versions]

    def kernel(run: Run, candidate: Candidate) -> Kernel:
        return FakeMachine(str(candidate.version)).kernel

    monkeypatch.setattr(providers, "choose", lambda name, offered: provider)
    monkeypatch.setattr(Run, "resolve", resolve)
    monkeypatch.setattr(Run, "kernel", kernel)
    monkeypatch.setattr(cli_machines, "HOME", str(tmp_path))
    yield provider
    for machine in provider.machines:
        assert not machine.alive, "a machine was left behind"


def _candidate(version: str) -> Candidate:
    kernel = FakeMachine(version).kernel
    return Candidate(version, kernel.version, kernel.release, kernel.source, kernel.checksum)


@pytest.fixture
def kernelfs(tmp_path: Path) -> Kernelfs:
    """Call the command with a cache of its own; a failure nobody foresaw fails the test."""

    def call(*arguments: str, answer: str | None = None) -> Result:
        runner = CliRunner(env={"KERNELFS_CACHE": str(tmp_path / "cache")})
        result = runner.invoke(main, arguments, input=answer)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Give this process input that ends."""
    before = os.dup(0)

    def feed(data: bytes) -> None:
        path = tmp_path / "input"
        path.write_bytes(data)
        descriptor = os.open(path, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)

    yield feed
    os.dup2(before, 0)
    os.close(before)


def calls(machine: FakeMachine) -> Sequence[Any]:
    """The arguments of the one command that a machine was asked for."""
    (arguments,) = machine.arguments("run")
    return arguments


def fill(descriptor: int) -> int:
    """Write to a pipe what it takes without a reader; gives how much that is."""
    os.set_blocking(descriptor, False)
    count = 0
    for piece in (bytes(4096), b"\0"):
        try:
            while True:
                count += os.write(descriptor, piece)
        except BlockingIOError:
            pass
    os.set_blocking(descriptor, True)
    return count
