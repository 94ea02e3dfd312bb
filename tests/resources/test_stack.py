"""What a test made goes in the reverse order, or its machine goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import pytest

from pytest_kernelfs.errors import (
    GuestCommandError,
    GuestTimeout,
    InfrastructureError,
    KernelPanic,
    UsageError,
)
from pytest_kernelfs.resources.disk import DiskFactory
from pytest_kernelfs.resources.dm import DmDevice
from pytest_kernelfs.resources.loop import LoopDeviceFactory
from pytest_kernelfs.resources.ram_disks import ZramFactory
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.sysctl import Sysctl
from tests.fake_machine import FakeMachine

if TYPE_CHECKING:
    from pytest_kernelfs.resources.mount import Mount


def note(done: list[str], name: str) -> Callable[[], None]:
    return lambda: done.append(name)


def test_the_latest_goes_first(resources: Resources) -> None:
    done: list[str] = []
    for name in ("disk", "xfs", "overlay"):
        resources.on_teardown(name, note(done, name))
    resources.close()
    assert done == ["overlay", "xfs", "disk"]


def test_what_holds_others_back_ends_before_all_of_them(resources: Resources) -> None:
    done: list[str] = []
    resources.on_teardown("dm", note(done, "dm"))
    resources.on_teardown("failing", note(done, "heal"), first=True)
    resources.on_teardown("suspension", note(done, "resume"), first=True)
    resources.on_teardown("cgroup", note(done, "cgroup"))
    resources.close()
    resources.close()
    assert done == ["resume", "heal", "cgroup", "dm"]


def test_nothing_goes_twice(resources: Resources) -> None:
    done: list[str] = []
    resources.on_teardown("disk", note(done, "disk"))
    resources.close()
    resources.close()
    assert done == ["disk"]


def test_in_a_dead_machine_nothing_is_taken_down(resources: Resources, machine: FakeMachine) -> None:
    done: list[str] = []
    resources.on_teardown("disk", note(done, "disk"))
    machine.alive = False
    resources.close()
    machine.alive = True
    resources.close()
    assert done == []


def test_when_the_machine_dies_meanwhile_the_rest_is_left(resources: Resources, machine: FakeMachine) -> None:
    done: list[str] = []
    resources.on_teardown("disk", note(done, "disk"))
    resources.on_teardown("xfs", machine.destroy)
    resources.close()
    assert done == []


def test_what_does_not_go_is_named_and_the_rest_is_left(resources: Resources) -> None:
    done: list[str] = []

    def busy() -> None:
        raise GuestCommandError("umount /mnt/xfs-1: busy; held by 42 (tail)")

    resources.on_teardown("disk", note(done, "disk"))
    resources.on_teardown("xfs /mnt/xfs-1", busy)
    resources.on_teardown("overlay", note(done, "overlay"))
    with pytest.raises(InfrastructureError, match=r"the xfs /mnt/xfs-1 .*held by 42 \(tail\)"):
        resources.close()
    assert done == ["overlay"]


@pytest.mark.parametrize("failure", [KernelPanic("it panicked"), GuestTimeout("it does not answer")])
def test_a_kernel_that_fails_meanwhile_is_told_as_such(resources: Resources, failure: Exception) -> None:
    def fail() -> None:
        raise failure

    done: list[str] = []
    resources.on_teardown("disk", note(done, "disk"))
    resources.on_teardown("xfs", fail)
    with pytest.raises(type(failure), match=str(failure)):
        resources.close()
    resources.close()
    assert done == []


def test_names_are_never_the_same(resources: Resources) -> None:
    names = [resources.name(kind) for kind in ("xfs", "overlay", "xfs")]
    assert len(set(names)) == 3
    assert [name.partition("-")[0] for name in names] == ["xfs", "overlay", "xfs"]


def test_a_power_cut_leaves_nothing_to_take_down_but_disks(
    resources: Resources, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    done: list[str] = []
    disk, gone = disk_factory(size="1M"), disk_factory(size="2M")
    gone._detach()
    resources.on_teardown("xfs", note(done, "xfs"))
    resources.on_teardown("frozen xfs", note(done, "frozen xfs"), first=True)
    resources.mounts.append(cast("Mount", object()))
    after = FakeMachine(find_disk="/dev/vdz")
    resources.vm.cutter = lambda *_: after
    resources.vm.power_cut()
    assert (resources.mounts, disk.path) == ([], "/dev/vdz")
    assert after.arguments("find_disk") == [(disk.serial, 1 << 20)]
    resources.close()
    assert done == []
    assert after.arguments("detach_disk") == [(disk.serial,)]


def test_what_is_asked_of_a_test_that_is_over_is_refused_as_nobody_would_take_it_down(
    resources: Resources, disk_factory: DiskFactory, machine: FakeMachine
) -> None:
    disk = disk_factory(size="1M")
    resources.close()
    machine.calls.clear()
    with pytest.raises(UsageError, match=r"overlay: the test that this was made for is over"):
        resources.name("overlay")
    with pytest.raises(UsageError, match=r"the disk: the test .* is over"):
        resources.on_teardown("the disk", lambda: None)
    with pytest.raises(UsageError, match=r"the test .* is over"):
        disk_factory(size="1M")
    with pytest.raises(UsageError, match=r"the test .* is over"):
        LoopDeviceFactory(resources)(on=disk)
    with pytest.raises(UsageError, match=r"the test .* is over"):
        Sysctl(resources).set("vm.swappiness", 1)
    with pytest.raises(UsageError, match=r"the test .* is over"):
        DmDevice(resources, "name", [(0, 1, "error", "")])
    with pytest.raises(UsageError, match=r"the test .* is over"):
        ZramFactory(resources)()
    with pytest.raises(UsageError, match=r"<disk /dev/kfs1 .* was there for a test that is over"):
        disk.throttle(iops=1)
    assert machine.calls == []


def test_a_test_is_over_though_something_would_not_go(resources: Resources) -> None:
    def busy() -> None:
        raise GuestCommandError("busy")

    resources.on_teardown("xfs", busy)
    with pytest.raises(InfrastructureError):
        resources.close()
    with pytest.raises(UsageError, match="is over"):
        resources.name("xfs")


def test_an_undo_may_still_make_what_it_needs(resources: Resources) -> None:
    names: list[str] = []
    resources.on_teardown("xfs", lambda: names.append(resources.name("check")))
    resources.close()
    assert names == ["check-1"]
