"""Traces: what is asked of the kernel, and how its lines are read."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.tracing import TraceEvent, Tracing, parse
from tests.fake_machine import FakeMachine

NEW = "              dd-123     [001] d..2.  1234.567890: block_rq_issue: 254,0 W 4096 () 0 + 8 [dd]\n"
OLD = "  kworker/u4:1-7  [000] ....  1234.500000: writeback_start: bdi 254:0: nr_pages=12 reason=sync\n"
CALL = "     my prog-x-99    [000] ..... 1235.000001: vfs_fsync_range <-do_fsync\n"
NOISE = "##### CPU 1 buffer started ####\nCPU:0 [LOST 12 EVENTS]\n\n"


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(stop={"text": NEW + OLD + NOISE, "left_out": 2, "lost": 3})


def test_events_are_read_from_old_and_new_kernels() -> None:
    assert parse(NEW + NOISE + OLD) == [
        TraceEvent(1234.56789, 1, "dd", 123, "block_rq_issue", "254,0 W 4096 () 0 + 8 [dd]"),
        TraceEvent(1234.5, 0, "kworker/u4:1", 7, "writeback_start", "bdi 254:0: nr_pages=12 reason=sync"),
    ]


def test_fields_are_what_has_a_name() -> None:
    assert parse(OLD)[0].fields == {"nr_pages": "12", "reason": "sync"}


def test_a_call_has_the_functions_name_and_its_caller() -> None:
    assert parse(CALL) == [TraceEvent(1235.000001, 0, "my prog-x", 99, "vfs_fsync_range", "do_fsync")]


def test_a_trace_is_complete_after_its_block_and_in_the_order_of_time(
    resources: Resources, machine: FakeMachine
) -> None:
    with Tracing(resources).events("block:block_rq_issue", "writeback:*", filter="x > 1", most=5) as trace:
        assert trace.events == []
    ((name, events, functions, _),) = machine.arguments("start")
    assert events == [("block:block_rq_issue", "x > 1"), ("writeback:*", "x > 1")]
    assert functions == []
    assert machine.arguments("stop") == [(name, 5)]
    assert [event.name for event in trace.events] == ["writeback_start", "block_rq_issue"]
    assert len(trace.named("block_rq_issue")) == 1
    assert trace.lost == 5


def test_each_trace_has_a_buffer_of_its_own(resources: Resources, machine: FakeMachine) -> None:
    tracing = Tracing(resources)
    with tracing.functions("vfs_fsync_range"), tracing.functions("vfs_write"):
        pass
    names = [arguments[0] for arguments in machine.arguments("start")]
    assert len(set(names)) == 2
    assert machine.arguments("start")[0][1:3] == ([], ["vfs_fsync_range"])


def test_a_trace_ends_with_a_block_that_fails_but_not_on_a_machine_that_is_gone(
    resources: Resources, machine: FakeMachine
) -> None:
    with pytest.raises(RuntimeError), Tracing(resources).events("block:*"):
        raise RuntimeError
    assert len(machine.arguments("stop")) == 1
    with Tracing(resources).events("block:*"):
        machine.alive = False
    assert len(machine.arguments("stop")) == 1


@pytest.mark.parametrize("events", [[], ["block"], ["block:"], ["block:*", "a b:c"], ["../x:y"]])
def test_what_is_no_event_is_refused(resources: Resources, machine: FakeMachine, events: list[str]) -> None:
    with pytest.raises(UsageError, match="system:event"), Tracing(resources).events(*events):
        pass
    assert machine.calls == []


@pytest.mark.parametrize("functions", [[], [""], ["a b"]])
def test_what_is_no_function_is_refused(resources: Resources, machine: FakeMachine, functions: Any) -> None:
    with (
        pytest.raises(UsageError, match="names of kernel functions"),
        Tracing(resources).functions(*functions),
    ):
        pass
    assert machine.calls == []
