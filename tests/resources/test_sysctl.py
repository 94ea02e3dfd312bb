"""Sysctls: typed, set back once, whatever was set how often."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl, as_text, typed
from tests.fake_machine import FakeMachine


def undo(changes: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """As the guest says it, for knobs that are all 1."""
    return [(name, name, "1") for name, _ in reversed(changes)]


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(write_sysctls=undo, read_sysctl="60")


@pytest.fixture
def sysctl(resources: Resources) -> Sysctl:
    return Sysctl(resources)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60", 60),
        ("-1", -1),
        ("4096\t131072 6291456", (4096, 131072, 6291456)),
        ("core.%p", "core.%p"),
        ("", ""),
    ],
)
def test_values_are_read_as_what_they_are(text: str, value: Any) -> None:
    assert typed(text) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(60, "60"), (True, "1"), (False, "0"), ("core", "core"), ((1, 2, 3), "1 2 3"), ([4], "4")],
)
def test_values_are_written_as_the_kernel_reads_them(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("value", [1.5, None, ["1"]])
def test_what_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="is no value"):
        as_text(value)


def test_reading_and_setting_by_name(sysctl: Sysctl, machine: FakeMachine) -> None:
    assert sysctl["vm.swappiness"] == sysctl.get("vm.swappiness") == 60
    sysctl["vm.swappiness"] = 7
    assert machine.arguments("write_sysctls") == [([("vm.swappiness", "7")],)]


def test_all_is_set_back_to_what_it_was_at_first_the_latest_first(
    sysctl: Sysctl, machine: FakeMachine, resources: Resources
) -> None:
    sysctl["vm.a"] = 5
    machine.answers["write_sysctls"] = lambda changes: [(name, name, "5") for name, _ in changes]
    sysctl.update({"vm.a": 6, "vm.b": 6})
    assert repr(sysctl) == "<sysctl vm.a, vm.b>"
    resources.close()
    assert machine.arguments("restore_sysctls") == [([("vm.b", "5"), ("vm.a", "1")],)]


def test_a_pair_is_one_thing_to_set_back(sysctl: Sysctl, machine: FakeMachine, resources: Resources) -> None:
    machine.answers["write_sysctls"] = [("vm.dirty_bytes", "vm.dirty_ratio", "20")]
    sysctl["vm.dirty_bytes"] = 1
    machine.answers["write_sysctls"] = [("vm.dirty_bytes", "vm.dirty_bytes", "1")]
    sysctl["vm.dirty_ratio"] = 30
    resources.close()
    assert machine.arguments("restore_sysctls") == [([("vm.dirty_ratio", "20")],)]


def test_a_block_sets_back_what_it_changed(
    sysctl: Sysctl, machine: FakeMachine, resources: Resources
) -> None:
    with pytest.raises(RuntimeError), sysctl.changed({"vm.a": 2, "vm.b": 3}):
        raise RuntimeError
    assert machine.arguments("restore_sysctls") == [([("vm.b", "1"), ("vm.a", "1")],)]
    resources.close()
    assert len(machine.arguments("restore_sysctls")) == 1


def test_a_machine_that_is_gone_has_nothing_to_set_back(resources: Resources, machine: FakeMachine) -> None:
    with Sysctl(resources).changed({"vm.a": 2}):
        machine.alive = False
    assert machine.arguments("restore_sysctls") == []


@pytest.mark.parametrize("name", ["", "/etc/passwd", "vm/../x", "a b", 5])
def test_what_is_no_name_is_refused(sysctl: Sysctl, machine: FakeMachine, name: Any) -> None:
    with pytest.raises(UsageError, match="is no name"):
        sysctl[name] = 1
    assert machine.calls == []


def test_what_does_something_has_nothing_to_set_back(machine: FakeMachine) -> None:
    machine.answers["write_sysctls"] = []
    resources = Resources(VM(machine))
    Sysctl(resources)["vm.compact_memory"] = 1
    resources.close()
    assert machine.arguments("restore_sysctls") == []


def test_several_are_given_as_a_mapping(sysctl: Sysctl) -> None:
    with pytest.raises(UsageError, match="is no mapping of names to values"):
        sysctl.update(["vm.swappiness"])  # type: ignore[arg-type]


def test_what_is_set_within_a_block_is_set_back_to_what_was_before_it(
    resources: Resources, machine: FakeMachine
) -> None:
    values = {"vm.a": "1", "vm.b": "1"}

    def write(changes: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
        was = [(name, name, values[name]) for name, _ in changes]
        values.update(changes)
        return was[::-1]

    machine.answers.update(write_sysctls=write, restore_sysctls=values.update)
    sysctl = Sysctl(resources)
    with sysctl.changed({"vm.a": 2}), sysctl.changed({"vm.a": 3, "vm.b": 3}):
        sysctl.update({"vm.a": 4, "vm.b": 4})
    sysctl["vm.b"] = 5
    resources.close()
    assert values == {"vm.a": "1", "vm.b": "1"}


def test_a_block_that_lost_its_machine_tells_nothing_of_the_next(resources: Resources) -> None:
    after = FakeMachine(write_sysctls=[("vm.a", "vm.a", "7")])
    resources.vm.cutter = lambda *_: after
    sysctl = Sysctl(resources)
    with sysctl.changed({"vm.a": 2}):
        resources.vm.power_cut()
        sysctl["vm.a"] = 3
    resources.close()
    assert after.arguments("restore_sysctls") == [([("vm.a", "7")],)]
