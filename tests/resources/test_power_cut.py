"""After a power cut nothing is remembered of the machine that is gone, and nothing in the next is touched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.sampling import Probes
from pytest_kernelfs.resources.cgroup import CgroupFactory
from pytest_kernelfs.resources.dm_factory import DmFactory
from pytest_kernelfs.resources.netns import NetnsPairFactory
from pytest_kernelfs.resources.overlay import OverlayFactory
from pytest_kernelfs.resources.ram_disks import BrdFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from pytest_kernelfs.resources.tracing import Tracing
from pytest_kernelfs.resources.writeback import Writeback
from tests.fake_machine import FakeMachine, ran

Block = Callable[[Resources], AbstractContextManager[Any]]


def made() -> FakeMachine:
    return FakeMachine(
        available_targets=["error", "zero"],
        claim=lambda controller, needed: [f"/v1/{controller}", True],
        create=lambda *_: "/dev/dm-0",
        create_pair=True,
        enabled=[],
        find_brd=lambda number, size: f"/dev/ram{number}",
        is_loaded=False,
        remove={"killed": 0, "retries": 0},
        root="/sys/fs/cgroup",
        run=ran(),
        snapshot={"time": 1.0, "written": {}},
        start=(77, "/run/x"),
        write_sysctls=lambda changes: [(name, name, "1") for name, _ in changes],
    )


@pytest.fixture
def machine() -> FakeMachine:
    return made()


def cut(resources: Resources) -> FakeMachine:
    """Cut the power; gives the machine that comes after it."""
    after = made()
    resources.vm.cutter = lambda *_: after
    resources.vm.power_cut()
    return after


def test_targets_are_looked_for_and_loaded_again(resources: Resources) -> None:
    factory = DmFactory(resources)
    factory.zero(size="1M")
    after = cut(resources)
    after.answers["available_targets"] = []
    factory.zero(size="1M")
    assert [arguments[0] for arguments in after.arguments("run")] == [
        ["modprobe", "dm_mod"],
        ["modprobe", "dm_zero"],
    ]


def test_the_places_of_cgroups_are_looked_for_again(resources: Resources) -> None:
    factory = CgroupFactory(resources)
    factory()
    factory(version=1, controllers=["memory"])
    after = cut(resources)
    factory()
    factory(version=1, controllers=["memory"])
    assert after.names.count("root") == 1
    assert after.arguments("claim") == [("memory", True), ("freezer", False)]
    resources.close()
    assert sorted(controller for controller, _ in after.arguments("release")) == ["freezer", "memory"]


def test_ram_disks_begin_anew(resources: Resources) -> None:
    factory = BrdFactory(resources)
    factory(size="8M")
    after = cut(resources)
    assert factory(size="16M").path == "/dev/ram0"
    assert after.arguments("run")[0][0] == ["modprobe", "brd", "rd_nr=16", "rd_size=16384"]


def test_sysctls_are_set_back_to_those_of_the_machine_that_is_there(resources: Resources) -> None:
    sysctl = Sysctl(resources)
    sysctl["vm.a"] = 2
    after = cut(resources)
    assert repr(sysctl) == "<sysctl unchanged>"
    sysctl["vm.b"] = 2
    resources.close()
    assert after.arguments("restore_sysctls") == [([("vm.b", "1")],)]


def test_layers_of_overlays_are_made_again(resources: Resources) -> None:
    factory = OverlayFactory(resources, pytest.fail)
    factory._layers["/mnt/base", 0, "[]"] = "/mnt/base/lower-1"
    cut(resources)
    assert factory._layers == {}


BLOCKS: dict[str, Block] = {
    "sampling": lambda resources: Probes(resources).sampling("meminfo"),
    "rtt_watch": lambda resources: NetnsPairFactory(resources)().rtt_watch(),
    "sysctl.changed": lambda resources: Sysctl(resources).changed({"vm.a": 2}),
    "tracing": lambda resources: Tracing(resources).events("block:block_rq_issue"),
    "writeback.watch": lambda resources: Writeback(resources, Sysctl(resources)).watch(),
    "dm.suspended": lambda resources: DmFactory(resources).zero(size="1M").suspended(),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_that_spans_a_power_cut_touches_nothing_after_it(resources: Resources, name: str) -> None:
    with BLOCKS[name](resources):
        after = cut(resources)
    assert after.calls == []


def test_what_was_sampled_is_not_complete(resources: Resources) -> None:
    recorded: list[Measurement] = []
    resources.record = recorded.append
    with Probes(resources).sampling("meminfo") as sampled:
        cut(resources)
    assert not sampled.complete
    assert recorded == []


def test_round_trips_are_lost(resources: Resources) -> None:
    with NetnsPairFactory(resources)().rtt_watch() as watch:
        cut(resources)
    with pytest.raises(UsageError, match="lost if the machine dies in it, or loses its power"):
        watch.run  # noqa: B018


def test_a_phase_that_spans_a_power_cut_is_none(resources: Resources) -> None:
    with Writeback(resources, Sysctl(resources)).watch() as watch, watch.phase("fill"):
        after = cut(resources)
    assert (watch.phases, after.calls) == ([], [])


def test_tests_before_on_the_same_machine_hear_of_no_power_cut(machine: FakeMachine) -> None:
    vm = VM(machine)
    Resources(vm).on_power_cut(pytest.fail)
    vm.begin_test("the next")
    told: list[str] = []
    resources = Resources(vm)
    resources.on_power_cut(lambda: told.append("now"))
    cut(resources)
    assert told == ["now"]
