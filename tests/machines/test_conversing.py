"""How a machine that a hypervisor runs for us is told who it is."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kernelfs import Kernel
from pytest_kernelfs.guest import fork
from pytest_kernelfs.machines import conversing
from pytest_kernelfs.machines.channel import call_payload
from tests.fake_machine import kernel


class Channel:
    """Stands in for a guest's that takes so many seconds to hear each of the first calls."""

    def __init__(self, clock: Clock, *late: float) -> None:
        self.heard: list[tuple[str, str]] = []
        self.clock_is_late = 0.0
        self._clock = clock
        self._late = list(late)

    def call(self, kind: str, payload: tuple[str, str], args: Any, kwargs: Any, timeout: float) -> int:
        self.clock_is_late = self._late.pop(0) if self._late else 0.0
        self._clock.now += self.clock_is_late
        self.heard.append(payload)
        return 7


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Machine(conversing.ConversingMachine):
    def __init__(self, kernel: Kernel, channel: Channel) -> None:
        super().__init__(kernel)
        self._given: Any = channel

    def _open_channel(self, deadline: float) -> Any:
        return self._given


def introduced(monkeypatch: pytest.MonkeyPatch, *late: float) -> Channel:
    clock = Clock()
    monkeypatch.setattr(conversing, "time", clock)
    channel = Channel(clock, *late)
    machine = Machine(kernel(), channel)
    machine.wait_ready(60.0)
    assert machine.log_start == 7
    return channel


def test_who_hears_the_time_at_once_is_told_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert introduced(monkeypatch).heard == [call_payload(fork.adopt)]


def test_who_hears_it_late_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = introduced(monkeypatch, 4.0, 1.0, 0.01)
    assert channel.heard == [call_payload(fork.adopt), *[call_payload(fork.set_clock)] * 2]
    assert channel.clock_is_late == 0.01


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(introduced(monkeypatch, *[2.0] * 20).heard) < 10
