"""A task is stuck if it stays in state D and is never scheduled, for as long as is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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


def looks(monkeypatch: pytest.MonkeyPatch, *samples: dict[Any, tuple[str, ...]]) -> tasks.Watch:
    """A watch that will see these samples, and that finds every task in the same place."""
    left = iter(samples)
    monkeypatch.setattr(tasks, "_sample", lambda kernel_threads, kernels_own=None: next(left))
    monkeypatch.setattr(tasks, "_describe", lambda key, seconds: {"tid": int(key[1]), "seconds": seconds})
    return tasks.Watch(1.0, most=1)


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
    watch = looks(monkeypatch, {ONE: SEEN, OTHER: SEEN}, {ONE: SEEN, OTHER: SEEN}, {ONE: SEEN, OTHER: SEEN})
    for now in (0.0, 2.0, 3.0):
        watch.look(now)
    assert len(watch.stuck) == 1
    assert watch.not_described == 1
