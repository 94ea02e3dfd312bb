"""What is said of a machine of Vagrant's that is there no more: by its console, and else by Vagrant."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kernelfs.errors import (
    GuestTimeout,
    InfrastructureError,
    KernelfsError,
    KernelMisbehaved,
    KernelPanic,
)
from pytest_kernelfs.guest import files
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.machines.tenant import machine as tenant
from pytest_kernelfs.machines.vagrant import machine as module
from pytest_kernelfs.machines.vagrant.machine import VagrantMachine
from tests.fake_machine import kernel
from tests.machines.tenant.test_machine import KILLED, WELL, FakeChannel, FakeConnection

BOOTED = "Run /init as init process\n[ 1.0] reboot: Restarting system\n[ 0.9] systemd[1]: Startup finished\n"
REBOOT = "[   99.000000] reboot: Restarting system\n"


class FakeInstance:
    """A machine whose console and state are as the test says."""

    def __init__(self) -> None:
        self.place = SimpleNamespace(name="kernelfs-7")
        self.kernel = kernel()
        self.was_restored = False
        self.keeps_console = True
        self.printed = [BOOTED]
        self.there = True
        self.called = "running"
        self.boots = [""]
        self.transport = SimpleNamespace(answers=lambda: self.there, heard=lambda: "ssh said nothing.")

    def connect(self) -> Any:
        return SimpleNamespace(prefix=lambda: ("ssh", "box"))

    def console(self) -> str:
        """A bit more with every look."""
        return self.printed.pop(0) if len(self.printed) > 1 else self.printed[0]

    def state(self) -> str:
        return self.called

    def boot_id(self, within: float) -> str:
        return self.boots.pop(0) if len(self.boots) > 1 else self.boots[0]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[VagrantMachine, FakeInstance]]:
    monkeypatch.setattr(tenant, "Connection", FakeConnection)
    monkeypatch.setattr(tenant, "GuestChannel", FakeChannel)
    monkeypatch.setattr(module, "_POLL_S", 0.001)
    monkeypatch.setattr(module, "_STILL_THERE_S", 0.05)
    instance = FakeInstance()
    machine = VagrantMachine(instance, lambda _instance: None, 10)  # type: ignore[arg-type]
    yield machine, instance
    machine.destroy()


def _died_of(made: tuple[VagrantMachine, FakeInstance], seen: Exception) -> KernelfsError:
    machine, _ = made
    channel: Any = machine._channel
    channel.answer = seen
    with pytest.raises(KernelfsError) as caught:
        machine.call(files.get, "/x", timeout=1)
    machine.destroy()
    return caught.value


@pytest.mark.parametrize("seen", [ChannelLost("end of file"), GuestTimeout("late")])
def test_a_reboot_in_the_test_is_its_failure(
    made: tuple[VagrantMachine, FakeInstance], seen: Exception
) -> None:
    made[1].printed = [BOOTED + REBOOT + "[    0.000000] coming up again\n"]
    error = _died_of(made, seen)
    assert isinstance(error, KernelMisbehaved)
    assert "was shut down or rebooted during the test" in str(error)
    assert str(error).endswith(REBOOT.strip())


@pytest.mark.parametrize("before", [BOOTED, ""])
@pytest.mark.parametrize(("there", "report"), [(True, WELL), (False, WELL), (False, KILLED)])
def test_a_system_that_goes_down_slowly_is_waited_for(
    made: tuple[VagrantMachine, FakeInstance],
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    report: dict[str, Any],
    before: str,
) -> None:
    """Its connections end first; the supervisor may see the agent killed by that.

    A machine that was put back has printed nothing since.
    """
    machine, instance = made
    machine._came = len(before)
    monkeypatch.setattr(module, "_STILL_THERE_S", 60.0)
    connection: Any = machine._connection
    connection.report = report
    instance.there = there
    instance.printed = [*[before] * 9, f"{before}[  OK  ] Stopped\n{REBOOT}"]
    assert "was shut down or rebooted" in str(_died_of(made, ChannelLost("end of file")))


def test_a_panic_goes_before_the_reboot_that_follows(made: tuple[VagrantMachine, FakeInstance]) -> None:
    made[1].printed = [f"{BOOTED}Kernel panic - not syncing: x\n{REBOOT}"]
    assert isinstance(_died_of(made, ChannelLost("end of file")), KernelPanic)


def test_an_agent_that_was_killed_is_told_at_once(
    made: tuple[VagrantMachine, FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STILL_THERE_S", 1e9)
    connection: Any = made[0]._connection
    connection.report = KILLED
    error = _died_of(made, ChannelLost("end of file"))
    assert isinstance(error, KernelMisbehaved)
    assert "was ended by SIGKILL" in str(error)


@pytest.fixture
def no_console(made: tuple[VagrantMachine, FakeInstance]) -> FakeInstance:
    """A machine whose console is not kept, and that is gone."""
    machine, instance = made
    machine._boot = "first"
    instance.there, instance.keeps_console, instance.printed = False, False, [""]
    return instance


def test_which_boot_it_was_is_asked_where_no_console_tells(
    made: tuple[VagrantMachine, FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answers(FakeChannel):
        def call(self, kind: str, payload: tuple[str, str], *_: Any) -> Any:
            assert payload[1] == "text"
            return "first\n"

    monkeypatch.setattr(tenant, "GuestChannel", Answers)
    instance: Any = made[1]
    assert made[0]._boot == ""
    instance.keeps_console = False
    machine = VagrantMachine(instance, lambda _instance: None, 10)
    assert machine._boot == "first"
    machine.destroy()


@pytest.mark.parametrize("boots", [["second"], ["", "second"], ["first", "", "second"]])
def test_one_without_a_console_that_comes_up_again_was_rebooted(
    made: tuple[VagrantMachine, FakeInstance],
    no_console: FakeInstance,
    boots: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STILL_THERE_S", 600.0)
    no_console.boots = boots
    error = _died_of(made, ChannelLost("end of file"))
    assert isinstance(error, KernelMisbehaved)
    assert "was rebooted during the test (end of file): it came up again" in str(error)


def test_one_that_never_went_down_was_not(
    made: tuple[VagrantMachine, FakeInstance], no_console: FakeInstance
) -> None:
    no_console.boots = ["first"]
    error = _died_of(made, ChannelLost("end of file"))
    assert isinstance(error, InfrastructureError)
    assert "vanished during the test (end of file): it was ended from outside, or its network" in str(error)


def test_one_that_is_off_is_not_waited_for(
    made: tuple[VagrantMachine, FakeInstance], no_console: FakeInstance
) -> None:
    no_console.called, no_console.boots = "shutoff", []
    error = _died_of(made, ChannelLost("end of file"))
    assert isinstance(error, InfrastructureError)
    assert "ended from outside, or a test or its kernel shut it down. Vagrant calls it 'shutoff'" in str(
        error
    )


@pytest.mark.parametrize(("printed", "state"), [(BOOTED, "shutoff"), ("", "running")])
def test_what_nothing_tells_of_is_no_failure(
    made: tuple[VagrantMachine, FakeInstance],
    printed: str,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """QEMU was killed, say; or the console is not kept."""
    monkeypatch.setattr(module, "_GOING_DOWN_S", 0.05)
    instance = made[1]
    instance.there, instance.called, instance.printed = False, state, [printed]
    instance.keeps_console = bool(printed)
    error = _died_of(made, ChannelLost("end of file"))
    assert isinstance(error, InfrastructureError)
    assert "vanished during the test" in str(error)
    assert f"Vagrant calls it {instance.called!r}" in str(error)


def test_a_call_that_hangs_ends_no_machine(made: tuple[VagrantMachine, FakeInstance]) -> None:
    machine, _ = made
    assert isinstance(_died_of(made, GuestTimeout("late")), GuestTimeout)
    assert machine.kernel == kernel()


def test_a_machine_that_cannot_be_told_the_time_leaves_no_connection(
    made: tuple[VagrantMachine, FakeInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    connections: list[FakeConnection] = []

    class Noted(FakeConnection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            connections.append(self)

    class Silent(FakeChannel):
        def call(self, *_: Any) -> Any:
            raise GuestTimeout("late")

    monkeypatch.setattr(tenant, "Connection", Noted)
    monkeypatch.setattr(tenant, "GuestChannel", Silent)
    instance: Any = made[1]
    instance.was_restored, instance.host_name = True, "box"
    with pytest.raises(GuestTimeout):
        VagrantMachine(instance, lambda _instance: None, 10)
    assert [connection.socket.fileno() for connection in connections] == [-1]
