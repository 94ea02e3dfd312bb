"""Dirty data: the limits that are asked for, and the phases of a watch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from pytest_kernelfs.resources.writeback import Writeback
from tests.fake_machine import FakeMachine

MIB = 1 << 20


def snapshot(time: float, dirty: int, written: dict[str, int]) -> dict[str, Any]:
    return {"time": time, "Dirty": dirty, "Writeback": 0, "written": written}


@pytest.fixture
def machine() -> FakeMachine:
    points = [[100.0, 1.0], [101.0, 7.0], [102.0, 3.0], [109.0, 9.0]]
    series = {name: {"unit": "B", "n": 4, "samples": points} for name in ("Dirty", "Writeback")}
    raw = {"start": 100.0, "end": 109.0, "samples": 4, "processor": 0.1, "series": series}
    return FakeMachine(
        write_sysctls=[],
        start=(7, "/run/x"),
        stop=json.dumps({**raw, "grown": {}, "stuck": [], "not_described": 0}),
        read={"MemAvailable": 1000 * MIB, "Dirty": 5},
    )


@pytest.fixture
def writeback(resources: Resources) -> Writeback:
    return Writeback(resources, Sysctl(resources))


def set_to(machine: FakeMachine) -> dict[str, str]:
    """What each knob was set to last."""
    return {name: value for (changes,) in machine.arguments("write_sysctls") for name, value in changes}


def test_data_is_held_up_to_a_share_of_the_memory(writeback: Writeback, machine: FakeMachine) -> None:
    assert writeback.hold() == 600 * MIB
    changes = set_to(machine)
    assert changes["vm.dirty_writeback_centisecs"] == "360000"
    assert changes["vm.dirty_background_bytes"] == str(600 * MIB)
    assert int(changes["vm.dirty_bytes"]) > 600 * MIB


def test_flushers_are_woken_now_so_that_none_is_due_later(writeback: Writeback, machine: FakeMachine) -> None:
    writeback.hold()
    intervals = [
        dict(changes).get("vm.dirty_writeback_centisecs") for (changes,) in machine.arguments("write_sysctls")
    ]
    assert intervals == ["0", "360000"]


def test_data_is_held_up_to_what_was_asked_for(writeback: Writeback, machine: FakeMachine) -> None:
    assert writeback.hold("64M") == 64 * MIB
    assert set_to(machine)["vm.dirty_background_bytes"] == str(64 * MIB)


@pytest.mark.parametrize("limit", ["801M", "1G", 0])
def test_more_than_the_memory_has_room_for_is_refused(
    writeback: Writeback, machine: FakeMachine, limit: int | str
) -> None:
    with pytest.raises(UsageError, match=r"cannot be held dirty with 1000\.0 MiB of memory available"):
        writeback.hold(limit)
    assert machine.arguments("write_sysctls") == []


def test_settling_tells_what_is_left(writeback: Writeback, machine: FakeMachine) -> None:
    machine.answers["settle"] = {"left": 100, "seconds": 0.5}
    assert writeback.settle() == 0.5
    machine.answers["settle"] = {"left": 3 * MIB, "seconds": 2.0}
    with pytest.raises(AssertionError, match=r"3\.0 MiB are still dirty .* after 2 s, more than 1\.0 MiB"):
        writeback.settle(at_most="1M", timeout=2.0)
    assert machine.arguments("settle")[-1] == (MIB, 2.0)
    assert writeback.dirty() == 5


def test_a_phase_has_its_own_samples_and_what_reached_the_disks(
    writeback: Writeback, machine: FakeMachine, resources: Resources
) -> None:
    recorded: list[Measurement] = []
    resources.record = recorded.append
    snapshots = iter(
        [
            snapshot(100.5, 2, {"vda": 10}),
            snapshot(102.5, 4, {"vda": 30, "vdb": 5}),
            snapshot(103.0, 0, {"vda": 30}),
            snapshot(103.1, 0, {"vda": 30}),
        ]
    )
    machine.answers["snapshot"] = lambda: next(snapshots)
    with writeback.watch() as watch:
        with watch.phase("write"):
            pass
        with watch.phase("idle"):
            pass
        with pytest.raises(UsageError, match="none before the block has ended"):
            watch["write"]
    assert watch["write"].dirty == Measurement("write: Dirty", "B", (2.0, 7.0, 3.0, 4.0))
    assert watch["write"].seconds == 2.0
    assert watch["write"].written == {"vda": 20, "vdb": 5}
    assert watch["idle"].dirty.samples == (0.0, 0.0)
    assert watch["idle"].written == {}
    assert [(measured.name, measured.max) for measured in recorded] == [
        ("write: Dirty", 7),
        ("write: Writeback", 7),
        ("write: written to vda", 20),
        ("write: written to vdb", 5),
        ("idle: Dirty", 0),
        ("idle: Writeback", 0),
    ]
    assert str(watch["write"]) == (
        "write: 2.000 s, Dirty at most 7 B, Writeback at most 7 B, written 20 B to vda, 5 B to vdb"
    )
    with pytest.raises(UsageError, match="no phase 'wirte'; phases: write, idle"):
        watch["wirte"]


def test_a_name_is_given_once(writeback: Writeback, machine: FakeMachine) -> None:
    machine.answers["snapshot"] = snapshot(1.0, 0, {})
    with writeback.watch() as watch:
        with watch.phase("one"):
            pass
        with pytest.raises(UsageError, match="a phase 'one' already"), watch.phase("one"):
            pass


def test_phases_are_kept_of_a_block_that_fails(writeback: Writeback, machine: FakeMachine) -> None:
    machine.answers["snapshot"] = snapshot(1.0, 0, {})
    with pytest.raises(RuntimeError), writeback.watch() as watch, watch.phase("one"):
        raise RuntimeError
    assert [phase.name for phase in watch.phases] == ["one"]
