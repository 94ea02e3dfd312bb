"""A tenant's machine on the host's side: what it says, refuses and warns of."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import (
    GuestCommandError,
    GuestTimeout,
    InfrastructureError,
    KernelMisbehaved,
    Unsupported,
)
from pytest_kernelfs.guest import files
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.machines.machine import DiskSpec, MachineSpec, Settings
from pytest_kernelfs.machines.tenant import machine as module
from pytest_kernelfs.machines.tenant.access import Access, Busy, Tenancy
from pytest_kernelfs.machines.tenant.connection import Connection
from pytest_kernelfs.machines.tenant.machine import TenantMachine
from pytest_kernelfs.machines.tenant.provider import CommandProvider
from pytest_kernelfs.news import heard_by
from tests.fake_machine import kernel
from tests.no_threads import no_threads

ACCESS = Access("lab", "lab-7", ("incus", "exec", "lab-7", "--"))
WELL = {"ended": "", "removed": [], "left": []}
KILLED = {**WELL, "ended": "was ended by SIGKILL"}
LOST = "lab-7 was lost during the test: the connection"


class FakeConnection:
    """The other side, as the test wants it."""

    def __init__(self, access: Access, settings: dict[str, Any], timeout: float) -> None:
        self.facts = {"log_start": 7, "mounts": "/run/kernelfs/mnt"}
        self.settings = settings
        self.timeout = timeout
        self.pid = 1
        self.ended = False
        self.code: int | None = 0
        self.report: dict[str, Any] | None = WELL
        self.in_time = True
        self.socket, self._theirs = socket.socketpair()

    def wait(self, within: float) -> int | None:
        return self.code

    def said(self) -> str:
        return "Connection reset"

    def close(self, patience: float) -> bool:
        self.ended = True
        self.socket.close()
        self._theirs.close()
        return self.in_time


class FakeChannel:
    """Answers as it was told, whatever is asked."""

    def __init__(self, connection: socket.socket) -> None:
        self.answer: Any = None
        self.asked: list[Any] = []

    def call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> Any:
        self.asked.append((payload[1], *args))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a machine; gives it, its connection and its channel."""
    monkeypatch.setattr(module, "Connection", FakeConnection)
    monkeypatch.setattr(module, "GuestChannel", FakeChannel)
    made: list[TenantMachine] = []

    def make(tenancy: Tenancy | None = None) -> tuple[TenantMachine, Any, Any]:
        machine = TenantMachine(ACCESS, kernel(), tenancy, timeout=10)
        made.append(machine)
        return machine, machine._connection, machine._channel

    yield make
    for machine in made:
        machine.destroy()


def test_it_is_told_of_when_it_comes(make: Any) -> None:
    machine, connection, _ = make(Tenancy(namespaces=True, wait=5, run="7e57"))
    assert connection.settings == {"namespaces": True, "wait": 5, "run": "7e57"}
    assert connection.timeout == 15, "another run may have to be waited for"
    assert (machine.log_start, machine.mounts, machine.alive) == (7, "/run/kernelfs/mnt", True)
    assert "lab-7" in repr(machine)
    machine.destroy()
    assert not machine.alive


def test_values_and_errors_of_calls_pass(make: Any) -> None:
    machine, _, channel = make()
    channel.answer = b"x"
    assert machine.call(files.get, "/x", timeout=1) == b"x"
    for error in (GuestCommandError("no"), GuestTimeout("late")):
        channel.answer = error
        with pytest.raises(type(error)):
            machine.call(files.get, "/x", timeout=1)
    assert machine.alive
    machine.destroy()
    with pytest.raises(InfrastructureError, match="is used no more"):
        machine.call(files.get, "/x", timeout=1)


@pytest.mark.parametrize(
    ("code", "report", "error", "said"),
    [
        (
            255,
            None,
            InfrastructureError,
            "lab-7 was lost during the test: the connection ended with exit code 255",
        ),
        (None, None, InfrastructureError, f"{LOST} broke"),
        (0, WELL, InfrastructureError, "exit code 0"),
        (
            0,
            {**WELL, "ended": "was ended by SIGKILL"},
            KernelMisbehaved,
            "the agent on lab-7 was ended by SIGKILL",
        ),
    ],
)
def test_who_is_to_blame_for_its_end(
    make: Any, code: int | None, report: Any, error: type[Exception], said: str
) -> None:
    machine, connection, channel = make()
    channel.answer = ChannelLost("the channel closed")
    connection.code, connection.report, connection.ended = code, report, True
    with pytest.raises(error) as caught:
        machine.call(files.get, "/x", timeout=1)
    assert said in str(caught.value)
    assert ("Connection reset" in str(caught.value)) == (error is InfrastructureError)
    with pytest.raises(error):
        machine.call_source("def f(): pass", "f", timeout=1)
    machine.check_alive()  # it was told already
    machine.destroy()


def test_an_end_that_nobody_noticed_is_told_once(make: Any) -> None:
    machine, connection, _ = make()
    machine.check_alive()
    connection.ended = True
    with pytest.raises(InfrastructureError, match="nobody had called it since"):
        machine.check_alive()
    machine.check_alive()
    machine.destroy()


def test_disks_are_asked_for_and_refusals_skip_the_test(make: Any) -> None:
    machine, _, channel = make()
    channel.answer = ("/dev/loop7", "")
    spec = DiskSpec(1 << 20, write_bps=5, cache="writethrough", sector_size=4096)
    assert machine.attach_disk(spec) == "/dev/loop7"
    limits = {"write_bps": 5, "read_bps": 0, "iops": 0}
    assert channel.asked[-1] == ("attach", 1 << 20, 4096, "writethrough", limits)
    machine.throttle_disk("/dev/loop7", DiskSpec(1 << 20))
    machine.detach_disk("/dev/loop7")
    assert [asked[0] for asked in channel.asked] == ["attach", "throttle", "detach"]
    channel.answer = (None, "cannot slow disks down")
    refusal = "the provider lab: lab-7 cannot slow disks down"
    with pytest.raises(Unsupported, match=refusal):
        machine.attach_disk(spec)
    with pytest.raises(Unsupported, match=refusal):
        machine.throttle_disk("/dev/loop7", spec)
    with pytest.raises(Unsupported, match="cannot cut the power"):
        machine.attach_disk(DiskSpec(1 << 20, power_cut=True))
    machine.destroy()


def test_keys_that_harm_the_machine_are_for_machines_of_our_own(make: Any) -> None:
    machine, _, channel = make()
    channel.answer = ("it said", "")
    assert machine.sysrq("wt", 5) == "it said"
    with pytest.raises(Unsupported, match="does not press the sysrq keys b, c"):
        machine.sysrq("wcb", 5)
    with pytest.raises(Unsupported, match="the sysrq keys f, u: they would harm what else runs on"):
        machine.sysrq("uf", 5)
    machine.destroy()
    owned, _, channel = make(Tenancy(owned=True))
    channel.answer = ("", "")
    owned.sysrq("c", 5)
    assert channel.asked == [("press", "c")]
    owned.destroy()


def test_what_stays_behind_is_told(make: Any) -> None:
    machine, connection, _ = make()
    connection.report = {**WELL, "removed": ["mount on /x"], "left": ["device y (in use)"]}
    heard: list[str] = []
    with heard_by(heard.append):
        machine.destroy()
    assert heard == ["lab-7 still has, of what tests made there: device y (in use)"]
    assert machine.leftovers == ["mount on /x"]
    machine.destroy()


@pytest.mark.parametrize(
    ("report", "in_time", "told"),
    [
        (None, True, "was left before our supervisor there could say that it is tidy"),
        (WELL, False, "did not say within 60 s that it is tidy"),
        (None, False, "did not say within 60 s that it is tidy"),
    ],
)
def test_that_a_machine_does_not_say_that_it_is_tidy_is_told(
    make: Any, report: Any, in_time: bool, told: str
) -> None:
    machine, connection, _ = make()
    connection.report, connection.in_time = report, in_time
    heard: list[str] = []
    with heard_by(heard.append):
        machine.destroy()
    assert heard == [f"lab-7 {told}; the next run tidies it"]


def test_a_provider_over_a_command(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(tmp_path, run="7e57")
    provider = CommandProvider(settings, name="lab", prefix=["incus", "exec", "lab-7", "--"])
    assert provider.access == Access("lab", "incus exec lab-7 --", ("incus", "exec", "lab-7", "--"))
    monkeypatch.setattr(CommandProvider, "kernel", kernel())
    assert provider.own_kernel() == kernel()
    assert provider.describe() == f"lab: incus exec lab-7 --, kernel {kernel().release}"
    assert provider.isolation == "session"
    assert provider.tenancy.run == "7e57"
    machine = provider.start(kernel(), MachineSpec(1 << 30, 1))
    machine.destroy()
    with pytest.raises(Unsupported, match="the provider lab cannot boot it with the parameters 'quiet'"):
        provider.start(kernel(), MachineSpec(1 << 30, 1, "quiet"))


def test_another_run_is_waited_for_once(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class BusyConnection(FakeConnection):
        def __init__(self, access: Access, settings: Any, timeout: float) -> None:
            waits.append(settings["wait"])
            if len(waits) < 4:
                raise Busy(f"not done within {settings['wait']:g} s")
            super().__init__(access, settings, timeout)

    monkeypatch.setattr(module, "Connection", BusyConnection)
    provider = CommandProvider(
        Settings(tmp_path), name="lab", prefix=["incus", "exec", "lab-7", "--"], tenancy=Tenancy(wait=60)
    )
    for _ in range(3):
        with pytest.raises(Busy, match="not done within 60 s"):
            provider.start(kernel(), MachineSpec(1 << 30, 1))
    provider.start(kernel(), MachineSpec(1 << 30, 1)).destroy()
    assert waits == [60, 0, 0, 0]


def test_a_connection_that_nobody_can_listen_to_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    begin = Connection._start

    def note(connection: Connection) -> tuple[subprocess.Popen[bytes], socket.socket]:
        process, ours = begin(connection)
        started.append(process)
        return process, ours

    monkeypatch.setattr(Connection, "_start", note)
    cat = Access("lab", "lab-7", ("sh", "-c", "cat > /dev/null"))
    with no_threads(monkeypatch), pytest.raises(InfrastructureError, match="a thread could not be started"):
        Connection(cat, {}, 60.0)
    assert started[0].returncode is not None
    assert started[0].stderr is not None
    assert started[0].stderr.closed


def test_neither_is_one_left_whose_agent_cannot_be_listened_to(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[FakeConnection] = []

    class Noted(FakeConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            connections.append(self)

    def refuse(connection: socket.socket) -> FakeChannel:
        raise InfrastructureError("a thread could not be started")

    monkeypatch.setattr(module, "Connection", Noted)
    monkeypatch.setattr(module, "GuestChannel", refuse)
    with pytest.raises(InfrastructureError, match="thread"):
        TenantMachine(ACCESS, kernel(), timeout=10)
    assert connections[0].ended
