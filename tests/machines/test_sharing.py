"""Machines of a provider that all have the shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import (
    GuestCommandError,
    InfrastructureError,
    KernelPanic,
    Unsupported,
    UsageError,
)
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider, Saved
from pytest_kernelfs.machines.plain import PlainProvider
from pytest_kernelfs.machines.shares import Share, parse_shares
from pytest_kernelfs.machines.sharing import SharingProvider
from pytest_kernelfs.shortage import Shortage
from tests.fake_machine import FakeMachine, kernel

pytestmark = pytest.mark.usefixtures("news")

SPEC = MachineSpec(1 << 30, 1)
KERNEL = kernel()
# What a machine is asked that gets a share of a few files.
COPIED = ["make_room", "unpack", "appear"]


def ready() -> None:
    """The power may go."""


class FakeSaved:
    """Something to fork from."""

    def __init__(self) -> None:
        self.discarded = False

    def discard(self) -> None:
        self.discarded = True


class FakeProvider(PlainProvider):
    """Its machines can be saved, unless it is told otherwise."""

    name = "fake"
    isolation = "module"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.made: list[FakeMachine] = []
        self.saved: list[FakeSaved] = []
        self.answers: dict[str, Any] = {}
        self.fails: dict[str, Exception] = {}

    def describe(self) -> str:
        return "fake machines"

    def userland(self) -> str:
        return "fake programs"

    def _make(self, how: str, kernel: Kernel = KERNEL) -> FakeMachine:
        self.asked.append(how)
        if how in self.fails:
            raise self.fails[how]
        answers = {"make_room": None, "unpack": None, "appear": None, "save": self._save, **self.answers}
        self.made.append(FakeMachine(str(kernel.version), **answers))
        return self.made[-1]

    def _save(self) -> FakeSaved:
        self.saved.append(FakeSaved())
        return self.saved[-1]

    def start(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        return self._make("start", kernel)

    def start_writable(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine:
        return self._make("start_writable", kernel)

    def start_if_quick(self, kernel: Kernel, spec: MachineSpec) -> FakeMachine | None:
        return self._make("spare", kernel)

    def fork(self, saved: Saved) -> FakeMachine:
        return self._make("fork")

    def fork_if_room(self, saved: Saved) -> FakeMachine | None:
        return self._make("spare fork")

    def power_cut(
        self, machine: Machine, keep: str, kernel: Kernel, ready: Callable[[], None]
    ) -> FakeMachine:
        return self._make(f"power_cut {keep}")

    def collect(self) -> list[str]:
        return ["collected"]

    def close(self) -> None:
        self.asked.append("close")


@pytest.fixture
def shares(tmp_path: Path) -> tuple[Share, ...]:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/file").write_text("x")
    return parse_shares([f"{tmp_path}/src:/src"])


@pytest.fixture
def inner() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def provider(inner: FakeProvider, shares: tuple[Share, ...]) -> Provider:
    return SharingProvider(inner, shares)


def test_shares_are_copied_once_and_then_forked(provider: Provider, inner: FakeProvider) -> None:
    machines = [provider.start(KERNEL, SPEC) for _ in range(3)]
    assert inner.asked == ["start_writable", "fork", "fork", "fork"]
    assert inner.made[0].names == [*COPIED, "save", "destroy"]
    assert [machine.names for machine in inner.made[1:]] == [[]] * 3
    assert machines == inner.made[1:]


def test_the_machine_is_told_what_appears_where(
    provider: Provider, inner: FakeProvider, shares: tuple[Share, ...]
) -> None:
    provider.start(KERNEL, SPEC)
    ((folder, size),) = inner.made[0].arguments("make_room")
    assert folder == "/run/kernelfs/share"
    assert 0 < size <= 4096
    assert inner.made[0].arguments("appear") == [(str(shares[0].host), "/run/kernelfs/share/src", "/src")]


def test_each_kernel_and_size_is_saved_and_the_oldest_go(provider: Provider, inner: FakeProvider) -> None:
    kernels = [kernel(f"6.{number}.1") for number in range(5)]
    for each in kernels:
        provider.start(each, SPEC)
    provider.start(kernels[-1], MachineSpec(2 << 30, 1))
    assert [saved.discarded for saved in inner.saved] == [True, True, False, False, False, False]
    provider.close()
    assert all(saved.discarded for saved in inner.saved)
    assert inner.asked[-1] == "close"


@pytest.mark.parametrize("error", [Unsupported("no"), UsageError("no")])
def test_where_nothing_can_be_saved_each_machine_gets_a_copy(
    provider: Provider, inner: FakeProvider, news: list[str], error: Exception
) -> None:
    inner.fails["start_writable"] = error
    for _ in range(2):
        provider.start(KERNEL, SPEC)
    assert inner.asked == ["start_writable", "start", "start"]
    assert [machine.names for machine in inner.made] == [COPIED, COPIED]
    assert provider.start_if_quick(KERNEL, SPEC) is inner.made[-1]
    assert inner.made[-1].names == COPIED
    assert news == [], "that is how this provider is"


@pytest.mark.parametrize("what", ["start_writable", "fork"])
def test_what_fails_is_told_once_and_tried_twice(
    provider: Provider, inner: FakeProvider, news: list[str], what: str
) -> None:
    inner.fails[what] = InfrastructureError("the host is busy")
    assert [provider.start(KERNEL, SPEC).alive for _ in range(4)] == [True] * 4
    assert inner.asked.count(what) == 2
    assert inner.asked.count("start") == 4
    (line,) = news
    assert line.startswith("a machine with the shared folders could not be saved and forked")
    assert line.endswith("the host is busy")


def test_one_failure_is_no_reason_to_copy_for_the_whole_run(provider: Provider, inner: FakeProvider) -> None:
    inner.fails["start_writable"] = InfrastructureError("the host is busy")
    provider.start(KERNEL, SPEC)
    del inner.fails["start_writable"]
    provider.start(KERNEL, SPEC)
    assert inner.asked == ["start_writable", "start", "start_writable", "fork"]


def test_a_host_where_nothing_starts_has_nothing_to_say_of_copies(
    provider: Provider, inner: FakeProvider, news: list[str]
) -> None:
    inner.fails["start_writable"] = inner.fails["start"] = InfrastructureError("there is no room")
    with pytest.raises(InfrastructureError, match="there is no room"):
        provider.start(KERNEL, SPEC)
    assert news == []


def test_a_machine_that_cannot_be_saved_after_all_ends(provider: Provider, inner: FakeProvider) -> None:
    inner.answers["save"] = InfrastructureError("no room")
    provider.start(KERNEL, SPEC)
    assert inner.asked == ["start_writable", "start"]
    assert [machine.alive for machine in inner.made] == [False, True]


def test_a_machine_ends_though_an_older_one_cannot_be_discarded(
    provider: Provider, inner: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: FakeSaved) -> None:
        raise InfrastructureError("the disk is gone")

    monkeypatch.setattr(FakeSaved, "discard", fail)
    monkeypatch.setattr("pytest_kernelfs.machines.sharing._MOST_SAVED", 1)
    for version in ("6.1", "6.12"):
        provider.start(kernel(version), SPEC)
    assert inner.asked == ["start_writable", "fork", "start_writable", "start"]
    assert not inner.made[2].alive


def test_a_fork_that_fails_is_made_up_for(provider: Provider, inner: FakeProvider) -> None:
    inner.fails["fork"] = InfrastructureError("the state is damaged")
    provider.start(KERNEL, SPEC)
    assert inner.asked == ["start_writable", "fork", "start"]
    assert inner.made[-1].names == COPIED
    assert inner.saved[0].discarded


def test_spares_are_forks(provider: Provider, inner: FakeProvider) -> None:
    assert provider.start_if_quick(KERNEL, SPEC) is None
    provider.start(KERNEL, SPEC)
    assert provider.start_if_quick(KERNEL, SPEC) is inner.made[-1]
    assert inner.asked[-1] == "spare fork"


def test_machines_that_do_not_come_from_start_have_the_shares_too(
    provider: Provider, inner: FakeProvider
) -> None:
    assert provider.start_writable(KERNEL, SPEC) is inner.made[0]
    assert provider.power_cut(inner.made[0], "flushed", KERNEL, ready) is inner.made[1]
    assert [machine.names for machine in inner.made] == [COPIED, COPIED]
    provider.fork(FakeSaved())
    provider.fork_if_room(FakeSaved())
    assert [machine.names for machine in inner.made[2:]] == [[], []]


def test_a_machine_that_cannot_have_them_ends(provider: Provider, inner: FakeProvider) -> None:
    inner.answers["make_room"] = GuestCommandError("9.0 MiB do not fit into this machine")
    with pytest.raises(GuestCommandError, match=r"^the folder .*/src cannot be shared: 9.0 MiB do not fit"):
        provider.start(KERNEL, SPEC)
    assert [machine.alive for machine in inner.made] == [False]


def test_a_kernel_that_panics_meanwhile_is_told_of(provider: Provider, inner: FakeProvider) -> None:
    inner.answers["unpack"] = KernelPanic("panicked")
    with pytest.raises(KernelPanic):
        provider.power_cut(FakeMachine(), "written", KERNEL, ready)
    assert [machine.alive for machine in inner.made] == [False]


def test_the_rest_is_the_providers_own(provider: Provider, shares: tuple[Share, ...]) -> None:
    assert (provider.name, provider.isolation) == ("fake", "module")
    assert provider.describe() == f"fake machines, sharing {shares[0].host} at /src"
    assert provider.own_kernel() is None
    assert provider.userland() == "fake programs"
    assert provider.collect() == ["collected"]
    provider.prove(KERNEL)


def test_what_the_host_lacks_at_a_moment_costs_nothing_saved(
    provider: Provider, inner: FakeProvider, news: list[str]
) -> None:
    provider.start(KERNEL, SPEC)
    inner.fails["fork"] = Shortage("no more files may be opened")
    for _ in range(3):
        assert provider.start(KERNEL, SPEC) is inner.made[-1]
        assert inner.asked[-2:] == ["fork", "start"]
    del inner.fails["fork"]
    provider.start(KERNEL, SPEC)
    assert inner.asked[-1] == "fork"
    assert not inner.saved[0].discarded
    assert news == []
