"""Caches, module parameters, debug messages, the kernel's look-out for hung tasks."""

from __future__ import annotations

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.knobs import DropCaches, DynamicDebug, HungTask, ModuleParameter
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from tests.fake_machine import FakeMachine

SITE = [(("xfs", "fs/xfs/xfs_log.c", "12", "f"), "_")]


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine(write_parameter="N", read_parameter="Y", apply=SITE, write_sysctls=[])


@pytest.mark.parametrize(
    ("pagecache", "slab", "number"), [(True, True, 3), (True, False, 1), (False, True, 2)]
)
def test_caches_are_dropped(
    resources: Resources, machine: FakeMachine, pagecache: bool, slab: bool, number: int
) -> None:
    DropCaches(resources)(pagecache=pagecache, slab=slab)
    assert machine.arguments("drop_caches") == [(number,)]


def test_dropping_nothing_is_a_mistake(resources: Resources) -> None:
    with pytest.raises(UsageError, match="nothing to drop"):
        DropCaches(resources)(pagecache=False, slab=False)


def test_a_parameter_is_read_as_what_it_is(resources: Resources, machine: FakeMachine) -> None:
    parameter = ModuleParameter(resources)
    assert parameter("overlay", "metacopy") is True
    machine.answers["read_parameter"] = "0"
    assert parameter("loop", "max_part") == 0
    machine.answers["read_parameter"] = "off"
    assert parameter("xz", "mode") == "off"
    resources.close()
    assert machine.arguments("restore_parameter") == []


def test_a_parameter_is_set_and_set_back(resources: Resources, machine: FakeMachine) -> None:
    ModuleParameter(resources)("dm-thin-pool", "metacopy", True)
    assert machine.arguments("write_parameter") == [("dm_thin_pool", "metacopy", "Y")]
    resources.close()
    assert machine.arguments("restore_parameter") == [("dm_thin_pool", "metacopy", "N")]


def test_debug_messages_are_switched_back(resources: Resources, machine: FakeMachine) -> None:
    assert DynamicDebug(resources)("module xfs +p") == 1
    resources.close()
    assert machine.arguments("apply") == [("module xfs +p",)]
    assert machine.arguments("restore") == [(SITE,)]


def test_the_kernel_looks_for_hung_tasks_as_often_as_they_may_hang(
    resources: Resources, machine: FakeMachine
) -> None:
    HungTask(Sysctl(resources))(timeout=2, panic=True)
    ((changes,),) = machine.arguments("write_sysctls")
    assert dict(changes) == {
        "kernel.hung_task_check_interval_secs": "0",
        "kernel.hung_task_warnings": "10",
        "kernel.hung_task_panic": "1",
        "kernel.hung_task_all_cpu_backtrace": "0",
        "kernel.hung_task_timeout_secs": "2",
    }
    assert changes[-1][0] == "kernel.hung_task_timeout_secs"


def test_times_below_zero_are_refused(resources: Resources, machine: FakeMachine) -> None:
    with pytest.raises(UsageError, match="seconds from 0 on"):
        HungTask(Sysctl(resources))(timeout=-1)
    assert machine.calls == []


def test_nothing_is_set_for_a_test_that_is_over(resources: Resources, machine: FakeMachine) -> None:
    resources.close()
    with pytest.raises(UsageError, match="the test that this was made for is over"):
        ModuleParameter(resources)("overlay", "metacopy", value=True)
    with pytest.raises(UsageError, match="the test that this was made for is over"):
        DynamicDebug(resources)("module xfs +p")
    assert machine.calls == []
