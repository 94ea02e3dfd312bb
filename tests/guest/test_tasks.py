"""A task is stuck if it stays in state D and is never scheduled, for as long as is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pytest_kernelfs.guest import patience, tasks
from tests.guest.test_patience import Clock

Samples = Iterator[dict[Any, tuple[str, ...]]]

ONE, OTHER = ("10", "11", 500), ("20", "20", 600)
SEEN = ("7", "3")


def watch(
    monkeypatch: pytest.MonkeyPatch, samples: Samples, longer_than: float = 60.0
) -> tuple[list[dict[str, Any]], int]:
    """What is found stuck in these samples, and how many were taken."""
    taken = 0

    def sample(kernel_threads: bool, only: object = None) -> dict[Any, tuple[str, ...]]:
        nonlocal taken
        taken += 1
        return next(samples)

    monkeypatch.setattr(tasks, "_sample", sample)
    return tasks.stuck(longer_than, 0.001), taken


def test_without_a_task_in_state_d_one_look_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, itertools.repeat({})) == ([], 1)


def test_a_task_that_never_moves_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    found, taken = watch(monkeypatch, itertools.repeat({ONE: SEEN}), 0.03)
    assert [(task["pid"], task["tid"]) for task in found] == [(10, 11)]
    assert found[0]["seconds"] >= 0.03
    assert taken > 1


def test_a_task_that_was_scheduled_between_looks_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    moving: Samples = ({ONE: (str(number), "3")} for number in itertools.count())
    assert watch(monkeypatch, moving) == ([], 2)


def test_a_task_that_was_preempted_between_looks_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    moving: Samples = ({ONE: ("7", str(number))} for number in itertools.count())
    assert watch(monkeypatch, moving) == ([], 2)


def test_a_task_that_waits_because_the_machine_stood_still_is_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(stall=100.0)
    monkeypatch.setattr(patience, "time", clock)
    assert watch(monkeypatch, iter([{ONE: SEEN}, {ONE: SEEN}, {}])) == ([], 3)
    assert clock.now > 1060.0


def test_a_task_that_ended_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, iter([{ONE: SEEN}, {ONE: SEEN}, {}])) == ([], 3)


def test_a_later_task_with_the_same_number_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    later = ("10", "11", 501)
    assert watch(monkeypatch, itertools.chain([{ONE: SEEN}], itertools.repeat({later: SEEN}))) == ([], 2)


def test_only_those_that_never_move_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: Samples = ({ONE: SEEN, OTHER: (str(number), "3")} for number in itertools.count())
    found, _ = watch(monkeypatch, samples, 0.03)
    assert [task["pid"] for task in found] == [10]


def looks(monkeypatch: pytest.MonkeyPatch, *samples: Mapping[Any, tuple[str, ...]]) -> tasks.Watch:
    """A watch that will see these samples, and that finds every task in the same place."""
    left = iter(samples)
    monkeypatch.setattr(tasks, "_sample", lambda kernel_threads, kernels_own=None: next(left))
    monkeypatch.setattr(tasks, "_describe", lambda key, seconds: {"tid": int(key[1]), "seconds": seconds})
    return tasks.Watch(1.0, most=1, step=1.0)


def test_a_watch_counts_and_describes_what_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, {}, {ONE: SEEN}, {ONE: SEEN}, {ONE: SEEN, OTHER: SEEN})
    assert watch.look(10.0) == (0, 0.0)
    assert watch.look(10.5) == (1, 0.0)
    assert watch.look(11.0) == (1, 0.5)
    assert watch.stuck == []
    assert watch.look(12.0) == (2, 1.5)
    assert watch.stuck == [{"tid": 11, "seconds": 1.5, "since": 10.5}]


def test_a_stuck_task_is_described_once_and_its_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, {ONE: SEEN}, {ONE: SEEN}, {ONE: SEEN}, {})
    for now in (0.0, 1.0, 5.0, 6.0):
        watch.look(now)
    assert watch.stuck == [{"tid": 11, "seconds": 5.0, "since": 0.0}]


def test_a_task_that_moved_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, {ONE: ("1", "0")}, {ONE: ("2", "0")}, {ONE: ("2", "0")})
    assert [watch.look(now)[1] for now in (0.0, 0.9, 1.8)] == [0.0, 0.0, pytest.approx(0.9)]
    assert watch.stuck == []


def test_more_stuck_tasks_than_are_described_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, *[{ONE: SEEN, OTHER: SEEN}] * 4)
    for now in (0.0, 2.0, 3.0, 4.0):
        watch.look(now)
    assert len(watch.stuck) == 1
    assert watch.not_described == 1


def test_of_more_than_are_described_the_longest_are(monkeypatch: pytest.MonkeyPatch) -> None:
    third = ("30", "30", 700)
    watch = looks(monkeypatch, *[{ONE: SEEN}] * 3, *[{OTHER: SEEN}] * 6, *[{third: SEEN}] * 4)
    told: list[list[int]] = []
    for now in range(13):
        watch.look(float(now))
        told.append([task["tid"] for task in watch.stuck])
    # The second is no longer than the first for two looks; the third never is.
    assert told == [[], [], *[[11]] * 4, *[[20]] * 7]
    assert watch.stuck == [{"tid": 20, "seconds": 5.0, "since": 3.0}]
    assert watch.not_described == 2


def test_one_that_is_stuck_still_makes_way_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, *[{ONE: SEEN}] * 3, *[{ONE: SEEN, OTHER: SEEN}] * 9)
    for now in range(12):
        watch.look(float(now))
    assert [task["tid"] for task in watch.stuck] == [11]
    assert watch.not_described == 1


def test_what_a_machine_stood_still_is_no_time_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, *[{ONE: SEEN}] * 8)
    watch._steps = patience.Steps(0.1)
    assert watch.look(10.0) == (1, 0.0)
    assert watch.look(15.0) == (1, 1.0)
    assert watch.stuck == []
    # All that it was really waiting.
    assert [watch.look(15.0 + 0.1 * number)[1] for number in range(1, 5)] == pytest.approx(
        [1.1, 1.2, 1.3, 1.4]
    )
    assert watch.stuck == []
    watch.look(15.6)
    assert [task["seconds"] for task in watch.stuck] == [pytest.approx(1.6)]
    watch.look(3600.0)
    assert watch.stuck[0]["seconds"] == pytest.approx(2.6)


def test_looks_that_are_far_apart_are_time_that_the_machine_had(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = looks(monkeypatch, *[{ONE: SEEN}] * 4)
    assert [watch.look(now)[1] for now in (0.0, 4.0, 8.0, 12.0)] == [0.0, 4.0, 8.0, 12.0]
