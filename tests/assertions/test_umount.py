"""How unmounts over their budget read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pytest_kernelfs.assertions.umount import describe_umounts, umount_under
from pytest_kernelfs.errors import GuestTimeout, UsageError
from pytest_kernelfs.machines.vm import VM
from pytest_kernelfs.measure import Measurement
from pytest_kernelfs.probes.umount import UmountRun, deadline
from tests.fake_machine import FakeMachine

MIB = 1 << 20
RUN = UmountRun(
    parallel=True,
    paths=("/mnt/overlay-2", "/mnt/overlay-3", "/mnt/overlay-4"),
    seconds=(4.0123, 0.5, 4.05),
    errors=("", "", ""),
    written={"vdb": 80 * MIB},
    dirty=(80 * MIB, 40 * MIB, 0),
    writeback=(0, 20 * MIB, 0),
)


class Target:
    """Something mounted."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.backing = f"{path}/upper"
        self.forgotten = False

    def forget(self) -> None:
        self.forgotten = True


def answer(*seconds: float, errors: list[str] | None = None) -> dict[str, Any]:
    return {
        "seconds": list(seconds),
        "errors": errors or [""] * len(seconds),
        "written": {"vda": 4096},
        "watch": [(0.0, 8192, 0), (0.1, 0, 0)],
        "holders": [[] for _ in seconds],
        "waited": [
            {"place": "io_wait", "times": 3, "looks": 4, "callers": ["sync_fs", "umount"]} for _ in seconds
        ],
    }


def test_slow_umounts_are_told_with_all_that_was_measured() -> None:
    assert describe_umounts(RUN, 1.0, "6.1.176") == (
        "2 of 3 umounts took longer than 1 s, at most 4.050 s (unmounted at once, kernel 6.1.176)\n"
        "  /mnt/overlay-2          4.012 s  over budget\n"
        "  /mnt/overlay-3          0.500 s\n"
        "  /mnt/overlay-4          4.050 s  over budget\n"
        "  written to vdb meanwhile: 80.0 MiB\n"
        "  Dirty: 80.0 MiB before, 0 B after, at most 80.0 MiB\n"
        "  Writeback: 0 B before, 0 B after, at most 20.0 MiB\n"
        "  about as much was written as was dirty (80.0 MiB in 4.050 s, 19.8 MiB/s): the umount waited for "
        "the disk. Sync before it to see what it takes by itself, or give the disk more speed"
    )


@pytest.mark.parametrize(
    ("written", "dirty", "told"),
    [
        (80, 80, "about as much was written as was dirty"),
        (80, 10, "more was written than was dirty"),
        (0, 80, "hardly anything was written"),
        (20, 80, "at most 20.0 MiB"),
    ],
)
def test_what_the_numbers_show_is_the_last_line(written: int, dirty: int, told: str) -> None:
    run = replace(RUN, written={"vdb": written * MIB}, dirty=(dirty * MIB, 0))
    assert told in describe_umounts(run, 1.0, "6.1").splitlines()[-1]


def test_the_slowest_umount_is_told_with_where_it_waited() -> None:
    waited = ("", "", "in wb_wait (9 of 10 looks)")
    lines = describe_umounts(replace(RUN, waited=waited), 1.0, "6.1").splitlines()
    assert lines[4] == "  the umount of /mnt/overlay-4 waited mostly in wb_wait (9 of 10 looks)"


def test_who_keeps_a_mount_busy_is_told() -> None:
    run = replace(RUN, errors=("", "Device or resource busy", ""), holders=((), ("7 (sh)", "8 (dd)"), ()))
    assert "0.500 s  Device or resource busy: held by 7 (sh), 8 (dd)" in describe_umounts(run, 5.0, "6.1")


def test_umounts_that_failed_are_told_with_the_kernels_reason() -> None:
    run = replace(RUN, parallel=False, errors=("", "Device or resource busy", ""), written={})
    assert describe_umounts(run, 5.0, "7.2.12") == (
        "1 of 3 umounts failed (unmounted one after another, kernel 7.2.12)\n"
        "  /mnt/overlay-2          4.012 s\n"
        "  /mnt/overlay-3          0.500 s  Device or resource busy\n"
        "  /mnt/overlay-4          4.050 s\n"
        "  there is no disk below: nothing counts what was written\n"
        "  Dirty: 80.0 MiB before, 0 B after, at most 80.0 MiB\n"
        "  Writeback: 0 B before, 0 B after, at most 20.0 MiB"
    )


def test_what_was_not_mounted_is_told() -> None:
    run = replace(RUN, errors=("", "Invalid argument", ""))
    assert "0.500 s  Invalid argument: nothing is mounted there\n" in describe_umounts(run, 5.0, "7.2.12")


def test_slow_and_failed_umounts_are_both_counted() -> None:
    run = replace(RUN, errors=("", "Device or resource busy", ""))
    first = describe_umounts(run, 1.0, "6.1.176").splitlines()[0]
    assert first == (
        "2 of 3 umounts took longer than 1 s, at most 4.050 s and 1 of 3 umounts failed "
        "(unmounted at once, kernel 6.1.176)"
    )


def test_quick_umounts_give_their_measurement() -> None:
    machine = FakeMachine(umount_timed=answer(0.1, 0.2))
    targets = [Target("/mnt/a"), Target("/mnt/b")]
    run = umount_under(VM(machine), 1.0, targets, parallel=True)
    measured = run.measurement
    assert (measured.name, measured.unit, measured.samples) == ("umount", "s", (0.1, 0.2))
    assert machine.arguments("umount_timed") == [
        (["/mnt/a", "/mnt/b"], ["/mnt/a/upper", "/mnt/b/upper"], True)
    ]
    assert all(target.forgotten for target in targets)
    assert run.waited == ("in io_wait (3 of 4 looks, called by sync_fs < umount)",) * 2


def test_a_time_that_just_meets_the_budget_is_good() -> None:
    run = umount_under(VM(FakeMachine(umount_timed=answer(1.0))), 1.0, [Target("/mnt/a")])
    assert run.measurement.max == 1.0


def test_a_measurement_is_recorded_also_of_a_failure() -> None:
    recorded: list[Measurement] = []
    vm = VM(FakeMachine(umount_timed=answer(0.1, 4.05)))
    targets = [Target("/mnt/a"), Target("/mnt/b")]
    with pytest.raises(AssertionError, match=r"1 of 2 umounts took longer than 1 s.*kernel 6\.1\.176"):
        umount_under(vm, 1.0, targets, record=recorded.append)
    assert [measurement.max for measurement in recorded] == [4.05]


def test_a_mount_that_could_not_be_unmounted_fails_and_is_not_forgotten() -> None:
    vm = VM(FakeMachine(umount_timed=answer(0.1, 0.1, errors=["Device or resource busy", ""])))
    busy, free = Target("/mnt/a"), Target("/mnt/b")
    with pytest.raises(AssertionError, match="1 of 2 umounts failed"):
        umount_under(vm, 1.0, [busy, free])
    assert (busy.forgotten, free.forgotten) == (False, True)


def test_without_mounts_there_is_nothing_to_judge() -> None:
    machine = FakeMachine()
    with pytest.raises(UsageError, match="there is nothing to unmount"):
        umount_under(VM(machine), 1.0, [])
    assert machine.calls == []


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_a_budget_that_cannot_be_met_is_refused(seconds: float) -> None:
    machine = FakeMachine()
    with pytest.raises(UsageError, match="cannot be met"):
        umount_under(VM(machine), seconds, [Target("/mnt/a")])
    assert machine.calls == []


def test_a_machine_that_does_not_answer_is_not_mistaken_for_a_slow_umount() -> None:
    machine = FakeMachine(umount_timed=GuestTimeout("no answer"))
    vm = VM(machine)
    with pytest.raises(GuestTimeout) as caught:
        umount_under(vm, 10.0, [Target("/mnt/a"), Target("/mnt/b")])
    assert not vm.usable
    assert machine.timeouts == [200.0]
    assert caught.value.message.splitlines()[0] == (
        "2 mounts had not all been unmounted after 200 s (budget 10 s each, one after another, "
        "kernel 6.1.176): /mnt/a, /mnt/b"
    )
    assert 'vm.sysrq("w")' in caught.value.message


@pytest.mark.parametrize(
    ("budget", "count", "limit"), [(0.5, 1, 60), (5, 4, 200), (60, 3, 600), (300, 4, 1260)]
)
def test_a_hang_is_waited_for_in_proportion_to_the_budget(budget: float, count: int, limit: float) -> None:
    assert deadline(budget, count) == limit
