"""How dying cgroups and slow reads are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_kernelfs.assertions.cgroups import (
    describe_dying,
    describe_reads,
    no_dying_cgroups,
    read_under,
)
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.cgroups import DyingCount, DyingRun, Pins, ReadRun
from tests.fake_machine import FakeMachine

MEMORY = {"Shmem": 1 << 20, "Mlocked": 0, "Dirty": 4096, "SwapTotal": 8192, "SwapFree": 4096}
PINS = Pins(writeback=1, page_cache=30, dentries=5, left=3, zombies=2, memory=MEMORY)
DYING = DyingRun(
    8.04,
    (DyingCount("/sys/fs/cgroup", "v2", 37, {"memory": 37}), DyingCount("/v1/pids", "v1 pids", 2, {})),
    PINS,
)
READS = ReadRun("/sys/fs/cgroup/memory.stat", (0.153, 0.2, 1.5), 658, 40)


def watched(*dying: int, pins: dict[str, Any] | None = None) -> dict[str, Any]:
    counts = [{"path": "/c", "name": "v2", "dying": number, "controllers": {}} for number in dying]
    return {"seconds": 0.5, "counts": counts, "pins": pins or {}}


def test_dying_cgroups_are_told_with_what_keeps_them() -> None:
    assert describe_dying(DYING, 1, "6.1").splitlines() == [
        "39 cgroups are still dying after 8.0 s: removed, but kept by the kernel (1 allowed, kernel 6.1)",
        "  v2 at /sys/fs/cgroup: 37 dying (kept by controller: memory 37)",
        "  v1 pids at /v1/pids: 2 dying",
        "  writeback kept 1: they went with a sync; what was written lately stays on its cgroup's list of "
        "dirty files, also after fsync(2)",
        '  page cache kept 30: they went with "echo 1 > /proc/sys/vm/drop_caches"; so they do when the files '
        "are removed, or memory runs short",
        '  dentries and inodes kept 5: they went with "echo 2 > /proc/sys/vm/drop_caches"',
        "  3 stayed when all caches were dropped: look for files on tmpfs and shared memory (1.0 MiB), "
        "swapped pages (4.0 KiB), locked pages (0 B), dirty pages (4.0 KiB)",
        "  2 processes of removed cgroups have ended, but their parents have not waited for them (zombies): "
        "each keeps its cgroup",
        "  to find this out, the machine's file systems were synced and its caches dropped just now",
    ]


def test_what_keeps_none_is_not_told() -> None:
    run = replace(DYING, counts=DYING.counts[1:], pins=replace(PINS, writeback=0, page_cache=0, left=0))
    lines = describe_dying(run, 0, "6.1").splitlines()
    assert lines[0].startswith("2 cgroups are still dying")
    assert [line.split()[0] for line in lines[1:]] == ["v1", "dentries", "to"]


def test_those_from_before_the_test_are_told_and_left_out() -> None:
    counts = (replace(DYING.counts[0], before=35), DYING.counts[1])
    run = replace(DYING, counts=counts)
    assert (run.total, run.before) == (4, 35)
    lines = describe_dying(run, 1, "6.1").splitlines()
    assert lines[0].startswith("4 cgroups are still dying after 8.0 s: removed, but kept by the kernel (1")
    assert lines[1] == (
        "  v2 at /sys/fs/cgroup: 37 dying, 35 of them since before the test (kept by controller: memory 37)"
    )
    assert lines[3] == (
        "  35 were there before the test, of earlier ones or of others on the machine; they do not count, "
        "but cannot be told from the test's own in what follows"
    )


def test_as_many_as_allowed_may_be_dying() -> None:
    machine = FakeMachine(watch=watched(2, 1))
    assert no_dying_cgroups(VM(machine), at_most=3, within=100).total == 3
    assert machine.arguments("watch") == [(3, 100, {})]
    assert machine.timeouts[0] > 100
    no_dying_cgroups(VM(machine), at_most=3, before={"v2": 1})
    assert machine.arguments("watch")[1] == (3, 8.0, {"v2": 1})


def test_more_than_allowed_fail() -> None:
    told: list[Measurement] = []
    with pytest.raises(AssertionError, match=r"4 cgroups are still dying after 0.5 s.*3 allowed"):
        no_dying_cgroups(VM(FakeMachine(watch=watched(4, pins=vars(PINS)))), at_most=3, record=told.append)
    assert [(kept.name, kept.unit, kept.max) for kept in told] == [("dying cgroups", "cgroups", 4)]


@pytest.mark.parametrize("arguments", [{"at_most": -1}, {"within": -0.1}])
def test_less_than_nothing_cannot_be_allowed(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be below 0"):
        no_dying_cgroups(VM(FakeMachine()), **arguments)


def test_slow_reads_are_told_with_all_that_was_measured() -> None:
    assert describe_reads(READS, 0.16, "4.9").splitlines() == [
        "2 of 3 reads of /sys/fs/cgroup/memory.stat took longer than 160.000 ms, at most 1.500 s "
        "(kernel 4.9)",
        "  max 1.500 s, p99 1.500 s, median 200.000 ms, the first 153.000 ms; 658 B each",
        "  40 cgroups are dying, which makes files such as memory.stat slow on some kernels: "
        "assert_no_dying_cgroups tells what keeps them",
    ]


def test_a_slow_first_read_is_told_apart() -> None:
    lines = describe_reads(ReadRun("/f", (2.0, 0.1), 1, 0), 1.0, "6.1").splitlines()
    assert lines[-1] == "  only the first was slow: what it fetched was cached for the others"


def test_reads_are_recorded_also_of_a_failure() -> None:
    recorded: list[Measurement] = []
    machine = FakeMachine(read_timed={"seconds": [0.1, 0.3], "bytes": 10, "dying": 0})
    run = read_under(VM(machine), "/f", 0.3, repeat=2, record=recorded.append)
    assert (run.seconds, run.size) == ((0.1, 0.3), 10)
    with pytest.raises(AssertionError, match=r"1 of 2 reads of /f took longer than 200.000 ms"):
        read_under(VM(machine), "/f", 0.2, repeat=2, record=recorded.append)
    assert [(each.name, each.max) for each in recorded] == [("read /f", 0.3)] * 2
    assert machine.arguments("read_timed")[0][:2] == ("/f", 2)


@pytest.mark.parametrize(("seconds", "repeat"), [(0, 1), (-1, 1), (1, 0)])
def test_what_cannot_be_demanded_is_refused(seconds: float, repeat: int) -> None:
    with pytest.raises(UsageError, match="cannot be demanded"):
        read_under(VM(FakeMachine()), "/f", seconds, repeat=repeat)
