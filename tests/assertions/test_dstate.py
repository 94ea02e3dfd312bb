"""How stuck tasks read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_kernelfs.assertions.dstate import describe_stuck, no_dstate
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.dstate import StuckTask
from tests.fake_machine import FakeMachine

STUCK = StuckTask(101, 102, "dd", 1.234, "percpu_rwsem_wait", "1 0x1 0x2", ("percpu_rwsem_wait+0x1/0x2",))


def test_stuck_tasks_are_told_with_where_they_wait() -> None:
    assert describe_stuck([STUCK], 1.0, "6.1.176") == (
        "1 task has been in uninterruptible sleep (D) for longer than 1 s without being scheduled "
        "(kernel 6.1.176)\n"
        "  dd (pid 101, tid 102): 1.23 s, waits in percpu_rwsem_wait, syscall 1 0x1 0x2\n"
        "      percpu_rwsem_wait+0x1/0x2"
    )


def test_what_is_not_known_of_a_stuck_task_is_said() -> None:
    lines = describe_stuck([STUCK, replace(STUCK, wchan="", syscall="", stack=())], 0.5, "5.10").splitlines()
    assert lines[0].startswith("2 tasks have been in uninterruptible sleep (D) for longer than 0.5 s")
    assert lines[-1] == "  dd (pid 101, tid 102): 1.23 s, waits in an unknown place, syscall unknown"


def test_without_stuck_tasks_nothing_is_said() -> None:
    machine = FakeMachine(stuck=[])
    no_dstate(VM(machine), 1.5, kernel_threads=True)
    ((longer_than, _, kernel_threads),) = machine.arguments("stuck")
    assert (longer_than, kernel_threads) == (1.5, True)


def test_the_guest_has_time_to_watch() -> None:
    machine = FakeMachine(stuck=[])
    no_dstate(VM(machine), 90.0)
    assert machine.timeouts[0] > 90.0


def test_a_stuck_task_fails() -> None:
    task = {**vars(STUCK), "stack": list(STUCK.stack)}
    told: list[Measurement] = []
    with pytest.raises(AssertionError) as caught:
        no_dstate(VM(FakeMachine(stuck=[task])), 1.0, record=told.append)
    assert [(kept.name, kept.unit, kept.max) for kept in told] == [("stuck in D", "tasks", 1)]
    assert str(caught.value) == describe_stuck([STUCK], 1.0, "6.1.176")


@pytest.mark.parametrize("seconds", [0, -0.5])
def test_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="longer_than is a time in seconds above 0"):
        no_dstate(VM(FakeMachine()), seconds)
