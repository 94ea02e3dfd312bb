"""Spares are made ahead in other threads, and none is left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.spares import Spares
from tests.fake_machine import FakeMachine
from tests.no_threads import no_threads

PATIENCE_S = 120.0


class Factory:
    """Makes machines, once ``go`` is set."""

    def __init__(self, *, waits: bool = False) -> None:
        self.made: list[FakeMachine] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        if not waits:
            self.go.set()

    def __call__(self) -> FakeMachine:
        assert self.go.wait(PATIENCE_S)
        self.threads.add(threading.current_thread().name)
        self.made.append(FakeMachine())
        return self.made[-1]


@pytest.fixture
def crowd() -> threading.Event:
    """Set while somebody waits for room."""
    return threading.Event()


@pytest.fixture
def spares(crowd: threading.Event) -> Iterator[Spares]:
    spares = Spares(crowd.is_set)
    yield spares
    spares.close()


def test_a_spare_is_taken_once(spares: Spares) -> None:
    factory = Factory()
    spares.prepare("6.1", factory, 1)
    assert spares.take("6.1") is not None
    assert spares.take("6.1") is None


def test_a_spare_on_its_way_is_waited_for(spares: Spares) -> None:
    factory = Factory(waits=True)
    spares.prepare("6.1", factory, 1)
    threading.Timer(0.02, factory.go.set).start()
    assert spares.take("6.1") in factory.made


def test_spares_are_made_in_other_threads(spares: Spares) -> None:
    factory = Factory()
    spares.prepare("6.1", factory, 2)
    assert spares.take("6.1") is not spares.take("6.1")
    assert threading.current_thread().name not in factory.threads


def test_no_more_are_made_than_asked_for(spares: Spares) -> None:
    factory = Factory()
    for _ in range(5):
        spares.prepare("6.1", factory, 2)
    taken = [spares.take("6.1") for _ in range(3)]
    assert [machine is not None for machine in taken] == [True, True, False]
    assert len(factory.made) == 2


def test_a_spare_of_another_kind_is_not_given_but_ended(spares: Spares) -> None:
    factory = Factory()
    spares.prepare("6.1", factory, 1)
    spares.wait()
    assert spares.take("5.10") is None
    assert factory.made[0].names == ["destroy"]
    assert spares.take("6.1") is None


def test_spares_of_another_kind_go(spares: Spares) -> None:
    old = Factory()
    spares.prepare("6.1", old, 2)
    new = Factory()
    spares.prepare("5.10", new, 1)
    assert not any(machine.alive for machine in old.made)
    assert spares.take("5.10") in new.made


def test_a_spare_that_died_is_not_given_but_ended(spares: Spares) -> None:
    factory = Factory()

    def stillborn() -> FakeMachine:
        machine = factory()
        machine.alive = False
        return machine

    spares.prepare("6.1", stillborn, 1)
    assert spares.take("6.1") is None
    assert factory.made[0].names == ["destroy"]


def test_without_room_there_is_no_spare(spares: Spares) -> None:
    spares.prepare("6.1", lambda: None, 1)
    assert spares.take("6.1") is None


def test_a_spare_that_could_not_be_made_is_none(spares: Spares) -> None:
    def fail() -> FakeMachine:
        raise OSError("no memory")

    spares.prepare("6.1", fail, 1)
    assert spares.take("6.1") is None


@pytest.mark.parametrize("comes", ["before", "after"])
def test_spares_go_when_somebody_waits_for_room(spares: Spares, crowd: threading.Event, comes: str) -> None:
    factory = Factory(waits=True)
    if comes == "before":
        crowd.set()  # while they are on their way
    spares.prepare("6.1", factory, 2)
    factory.go.set()
    crowd.set()
    wait_until(lambda: not spares._coming)
    crowd.clear()
    assert spares.take("6.1") is None
    spares.prepare("6.1", Factory(), 1)
    assert spares.take("6.1") is not None
    spares.close()
    assert not any(machine.alive for machine in factory.made)


def test_who_cannot_tell_whether_somebody_waits_goes_on_asking() -> None:
    answers: list[Exception | bool] = [
        True,
        OSError("no more files"),
        InfrastructureError("no folder"),
        False,
    ]

    def ask() -> bool:
        answer = answers.pop() if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    spares, factory = Spares(ask), Factory()
    spares.prepare("6.1", factory, 1)
    wait_until(lambda: any(not machine.alive for machine in factory.made))
    spares.close()


def test_closing_ends_all_that_were_not_taken() -> None:
    spares, factory = Spares(lambda: False), Factory()
    before = threading.enumerate()
    spares.prepare("6.1", factory, 2)
    taken = spares.take("6.1")
    spares.prepare("6.1", factory, 2)
    spares.close()
    assert [machine for machine in factory.made if machine.alive] == [taken]
    # One that was there may have ended since.
    assert set(threading.enumerate()) <= set(before)


def test_closing_twice_is_no_error(spares: Spares) -> None:
    spares.prepare("6.1", Factory(), 1)
    spares.close()
    spares.close()
    assert spares.take("6.1") is None


def test_without_a_thread_for_it_there_is_no_spare_ever(
    spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory, forgotten = Factory(waits=True), Factory()
    with no_threads(monkeypatch):
        spares.prepare("6.1", forgotten, 1)
    assert spares.take("6.1") is None
    spares.prepare("6.1", factory, 1)
    with no_threads(monkeypatch):
        spares.prepare("6.1", forgotten, 2)
    factory.go.set()  # its thread finds what is left to be done
    assert spares.take("6.1") is factory.made[0]
    assert spares.take("6.1") is None
    spares.prepare("6.1", factory, 2)
    spares.wait()
    assert len(factory.made) == 3
    assert forgotten.made == []


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        os.sched_yield()
