"""How space that does not come back is told."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from pytest_kernelfs.assertions.space import space_reclaimed
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.machine import DiskSpec
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.resources.disk import Disk
from pytest_kernelfs.resources.loop import LoopDevice
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import Resources
from tests.fake_machine import FakeMachine

MIB = 1 << 20


def machine(before: int, after: int, how: str = "statfs", held: Any = ()) -> FakeMachine:
    return FakeMachine(
        used=lambda path, _sync: {"used": before * MIB, "how": how, "place": path, "device": 7},
        wait_until_used={"used": after * MIB, "seconds": 2.5, "held": list(held)},
    )


def test_space_that_comes_back_is_told() -> None:
    fake = machine(20, 11)
    with space_reclaimed(VM(fake), "/mnt/x", at_least="8M", within=5) as seen:
        assert seen.after == 0
    assert seen.reclaimed == 9 * MIB
    assert seen.seconds == 2.5
    assert fake.arguments("used") == [("/mnt/x", True)]
    assert fake.arguments("wait_until_used") == [("/mnt/x", 12 * MIB, 5, True, 7)]


@pytest.mark.parametrize(("sync", "grace"), [(True, 300.0), (False, 60.0)])
def test_a_slow_disk_has_time_to_take_what_is_dirty(sync: bool, grace: float) -> None:
    fake = machine(20, 11)
    with space_reclaimed(VM(fake), "/mnt/x", at_least="8M", within=5, sync=sync):
        pass
    assert fake.timeouts == [grace, grace + 5]


def test_after_the_block_the_mount_is_looked_at() -> None:
    fake = machine(20, 11)
    fake.answers["used"] = {"used": 20 * MIB, "how": "statfs", "place": "/mnt/x", "device": 7}
    with space_reclaimed(VM(fake), "/mnt/x/images", at_least="8M") as seen:
        pass
    assert fake.arguments("wait_until_used")[0][0] == "/mnt/x"
    assert seen.path == "/mnt/x/images"


def test_space_that_does_not_come_back_is_told_with_who_holds_it() -> None:
    fake = machine(20, 19, held=[(8 * MIB, "/mnt/x/file", "7 (sleep)")])
    with (
        pytest.raises(AssertionError) as caught,
        space_reclaimed(VM(fake), "/mnt/x", at_least="8M", sync=False),
    ):
        pass
    assert str(caught.value) == (
        "1.0 MiB of at least 8.0 MiB came back on /mnt/x within 2.5 s (kernel 6.1.176)\n"
        "  used before: 20.0 MiB, after: 19.0 MiB (statfs)\n"
        "  deleted, but open in 7 (sleep): /mnt/x/file, 8.0 MiB"
    )


def test_a_file_behind_a_device_is_told_with_what_it_needs() -> None:
    resources = Resources(VM(machine(20, 21, how="allocated blocks of the file")))
    loop = LoopDevice(resources, "/dev/loop0", "/run/kernelfs/loop/1.img", 1 << 30, None)
    with pytest.raises(AssertionError) as caught, space_reclaimed(resources.vm, loop, at_least="8M"):
        pass
    text = str(caught.value)
    assert text.startswith(
        "nothing (1.0 MiB more are used) of at least 8.0 MiB came back on /run/kernelfs/loop/1.img"
    )
    assert "fstrim" in text


def test_a_mount_is_meant_by_where_it_is() -> None:
    fake = machine(20, 1)
    resources = Resources(VM(fake))
    with space_reclaimed(resources.vm, Mount(resources, "/mnt/m", "/mnt/m", None), at_least=1):
        pass
    assert fake.arguments("used") == [("/mnt/m", True)]


def test_without_enough_to_come_back_the_block_is_at_the_wrong_place() -> None:
    with (
        pytest.raises(UsageError, match=r"only 4\.0 MiB are used by /mnt/x"),
        space_reclaimed(VM(machine(4, 0)), "/mnt/x", at_least="8M"),
    ):
        pass


@pytest.mark.parametrize("options", [{"at_least": 0}, {"at_least": 1, "within": -1}])
def test_what_cannot_be_asked_is_refused(options: Any) -> None:
    fake = machine(4, 0)
    with pytest.raises(UsageError), space_reclaimed(VM(fake), "/mnt/x", **options):
        pass
    assert fake.calls == []


def test_a_loop_device_on_a_device_is_refused() -> None:
    resources = Resources(VM(machine(4, 0)))
    loop = LoopDevice(resources, "/dev/loop0", "/dev/vda", 1 << 30, None)
    with pytest.raises(UsageError, match="is on a device"), space_reclaimed(resources.vm, loop, at_least=1):
        pass


def test_a_device_is_refused_with_what_to_give_instead() -> None:
    resources = Resources(VM(machine(4, 0)))
    disk = Disk(resources, DiskSpec(1 << 30))
    with (
        pytest.raises(UsageError, match="give a mounted file system"),
        space_reclaimed(resources.vm, disk, at_least=1),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("after", [1, 20])
def test_what_came_back_is_recorded_also_of_a_failure(after: int) -> None:
    told: list[Measurement] = []
    judged = space_reclaimed(VM(machine(20, after)), "/mnt/x", at_least="8M", record=told.append)
    with suppress(AssertionError), judged:
        pass
    assert [(kept.name, kept.unit, kept.max) for kept in told] == [
        ("reclaimed on /mnt/x", "B", (20 - after) * MIB),
        ("reclaimed on /mnt/x after", "ms", 2500),
    ]


def test_a_block_that_fails_is_not_judged() -> None:
    fake = machine(20, 20)
    with pytest.raises(RuntimeError), space_reclaimed(VM(fake), "/mnt/x", at_least=1):
        raise RuntimeError
    assert fake.arguments("wait_until_used") == []
