"""A task is stuck if it stays in state D and is never scheduled, for as long as is asked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from pytest_kernelfs.guest import tasks

Samples = Iterator[dict[Any, tuple[str, ...]]]

ONE, OTHER = ("10", "11", 500), ("20", "20", 600)
SEEN = ("7", "3")


def watch(monkeypatch: pytest.MonkeyPatch, samples: Samples) -> tuple[list[dict[str, Any]], int]:
    """What is found stuck in these samples, and how many were taken."""
    taken = 0

    def sample(kernel_threads: bool, only: object = None) -> dict[Any, tuple[str, ...]]:
        nonlocal taken
        taken += 1
        return next(samples)

    monkeypatch.setattr(tasks, "_sample", sample)
    return tasks.stuck(0.03, 0.01), taken


def test_without_a_task_in_state_d_one_look_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, itertools.repeat({})) == ([], 1)


def test_a_task_that_never_moves_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    found, taken = watch(monkeypatch, itertools.repeat({ONE: SEEN}))
    assert [(task["pid"], task["tid"]) for task in found] == [(10, 11)]
    assert found[0]["seconds"] >= 0.03
    assert taken > 2


def test_a_task_that_was_scheduled_between_looks_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    moving: Samples = ({ONE: (str(number), "3")} for number in itertools.count())
    assert watch(monkeypatch, moving) == ([], 2)


def test_a_task_that_was_preempted_between_looks_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    moving: Samples = ({ONE: ("7", str(number))} for number in itertools.count())
    assert watch(monkeypatch, moving) == ([], 2)


def test_a_task_that_ended_is_not_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, iter([{ONE: SEEN}, {ONE: SEEN}, {}])) == ([], 3)


def test_a_later_task_with_the_same_number_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    later = ("10", "11", 501)
    assert watch(monkeypatch, itertools.chain([{ONE: SEEN}], itertools.repeat({later: SEEN}))) == ([], 2)


def test_only_those_that_never_move_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: Samples = ({ONE: SEEN, OTHER: (str(number), "3")} for number in itertools.count())
    found, _ = watch(monkeypatch, samples)
    assert [task["pid"] for task in found] == [10]
