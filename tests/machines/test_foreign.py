"""What providers of other plugins raise by mistake, as it comes up here."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestTimeout, InfrastructureError, Unsupported
from pytest_kernelfs.machines.foreign import watched
from pytest_kernelfs.machines.machine import Machine, MachineSpec, Provider, Settings
from pytest_kernelfs.machines.plain import PlainProvider
from tests.fake_machine import FakeMachine, kernel

SETTINGS = Settings(Path("/nowhere"))
SPEC = MachineSpec(1 << 30, 1)


class Theirs(PlainProvider):
    """Does what it is told to, by name."""

    name = "lab"

    def __init__(self, settings: Settings, **does: Any) -> None:
        self.does = does
        self.machine = FakeMachine()
        self.cut: Any = None

    def describe(self) -> str:
        result: Any = self.does.get("describe", lambda: "a lab")()
        return str(result)

    def start(self, kernel: Any, spec: MachineSpec) -> Machine:
        return self.machine

    def power_cut(self, machine: Machine, *_: Any) -> Machine:
        self.cut = machine
        return machine


def make(**does: Any) -> Provider:
    return watched("lab", lambda settings: Theirs(settings, **does))(SETTINGS)


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: Any) -> Any:
        raise error

    return act


def test_what_works_is_as_it_was() -> None:
    provider = make()
    assert (provider.describe(), provider.isolation, provider.own_kernel()) == ("a lab", "session", None)
    assert provider.start_if_quick(kernel(), SPEC) is None
    machine = provider.start(kernel(), SPEC)
    theirs: Any = provider
    assert repr(machine) == repr(theirs.machine)
    machine.spoiled = True
    assert theirs.machine.spoiled
    assert copy.copy(machine).spoiled


def test_what_it_gave_is_given_back_as_it_was() -> None:
    provider = make()
    machine = provider.start(kernel(), SPEC)
    provider.power_cut(machine, "written", kernel(), lambda: None)
    theirs: Any = provider
    assert theirs.cut is theirs.machine


def test_a_mistake_is_told_with_its_place() -> None:
    with pytest.raises(InfrastructureError) as caught:
        make(describe=raising(KeyError("x"))).describe()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"'describe' of the provider 'lab' raised KeyError: 'x' ({__file__}:")
    assert "in act); this is a fault of the plugin" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError), "the traceback is there for who wants it"


def test_its_place_is_the_plugins_even_where_pythons_library_raised_it() -> None:
    with pytest.raises(InfrastructureError, match=rf"No such file .*\({__file__}:\d+, in <lambda>\)"):
        make(describe=lambda: subprocess.run(["/nowhere/at-all"], check=False)).describe()


def test_one_that_says_several_lines_is_told_in_one() -> None:
    with pytest.raises(InfrastructureError, match="raised ValueError: one two three "):
        make(describe=raising(ValueError("one\n  two\nthree"))).describe()


def test_one_that_cannot_be_made() -> None:
    with pytest.raises(InfrastructureError, match=r"^making the provider 'lab' raised RuntimeError: no "):
        watched("lab", raising(RuntimeError("no")))(SETTINGS)


def test_what_is_not_there_is_told() -> None:
    provider = watched("lab", lambda settings: object())(SETTINGS)  # type: ignore[arg-type,return-value]
    with pytest.raises(InfrastructureError, match="'isolation' of the provider 'lab' raised AttributeError"):
        provider.isolation  # noqa: B018  (it is what raises)
    assert not hasattr(provider, "what_no_provider_has")


def test_its_machines_are_watched_too() -> None:
    provider = make()
    machine = provider.start(kernel(), SPEC)
    theirs: Any = provider
    theirs.machine.destroy = raising(OSError("the lab is closed"))
    with pytest.raises(InfrastructureError, match="'destroy' of a machine of the provider 'lab' raised OSE"):
        machine.destroy()


def test_and_so_are_calls_in_them() -> None:
    class Exchange:
        send = staticmethod(raising(TypeError("not that")))

    provider = make()
    theirs: Any = provider
    theirs.machine.exchange = lambda *_: Exchange()
    exchange = provider.start(kernel(), SPEC).exchange(len)
    with pytest.raises(InfrastructureError, match="'send' of a call in a machine of the provider 'lab'"):
        exchange.send(1)


@pytest.mark.parametrize("error", [GuestTimeout("late"), Unsupported("cannot"), KeyboardInterrupt()])
def test_errors_of_ours_and_what_ends_us_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        make(describe=raising(error)).describe()
    assert caught.value is error
