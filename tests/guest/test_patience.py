"""Patience counts the time that the machine had, and no more."""

from __future__ import annotations

import pytest

from pytest_kernelfs.guest import patience
from pytest_kernelfs.guest.patience import Patience


class Clock:
    """Time that passes only in sleeps; the first takes ``stall`` seconds longer than it should."""

    def __init__(self, stall: float = 0.0) -> None:
        self.now = 1000.0
        self._stall = stall

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self._stall
        self._stall = 0.0


def stand_still(monkeypatch: pytest.MonkeyPatch, seconds: float = 3600.0) -> Clock:
    """From now on time passes in sleeps alone, and in the first of them the machine stands still."""
    clock = Clock(seconds)
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    monkeypatch.setattr("time.sleep", clock.sleep)
    return clock


@pytest.mark.parametrize(("stall", "looks"), [(0.0, 16), (0.125, 12), (3600.0, 7)])
def test_a_machine_that_stood_still_has_waited_for_little(
    monkeypatch: pytest.MonkeyPatch, stall: float, looks: int
) -> None:
    monkeypatch.setattr(patience, "time", Clock(stall))
    waiting = Patience(0.5, step=0.03125)
    assert sum(1 for _ in iter(waiting.wait, False)) == looks
    assert not waiting.wait()


def test_looks_that_always_take_long_are_time_that_the_machine_had(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    waiting = Patience(20.0, step=0.03125)
    begin = clock.now
    while waiting.wait():
        clock.now += 2.0
    assert 20 < clock.now - begin < 30
    waiting = Patience(20.0, step=0.03125)
    begin = clock.now
    for number in range(10):
        assert waiting.wait()
        clock.now += 3600.0 if number % 2 else 0.0
    assert waiting.left > 17


def test_the_first_look_comes_after_no_time() -> None:
    steps = patience.Steps(0.5)
    assert [steps.passed(now) for now in (1000.0, 1001.0, 2000.0)] == [0.0, 1.0, 5.0]


def test_what_is_better_than_to_sleep_is_done_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    waiting = Patience(0.5, step=0.25)
    asked: list[float] = []
    assert waiting.wait(asked.append)
    assert (asked, waiting.left) == ([0.25], 0.5)
    assert waiting.wait(lambda seconds: clock.sleep(2 * seconds))
    assert waiting.left == 0
    assert not waiting.wait(asked.append)


def test_without_any_it_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "time", Clock())
    assert not Patience(0.0).wait()
