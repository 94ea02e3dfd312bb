"""The first process of a machine lives as long as the machine."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

import pytest

from pytest_kernelfs.guest import init


def test_where_there_is_no_room_for_a_process_it_waits_and_buries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a fork bomb, in the moment in which the agent ends, would be a panic of the kernel."""
    answers: Iterator[int] = iter([errno.EAGAIN, errno.ENOMEM, 0])
    ended = [7, 8]
    slept: list[float] = []

    def fork() -> int:
        code = next(answers)
        if code:
            raise OSError(code, os.strerror(code))
        return 42

    def waitpid(_pid: int, flags: int) -> tuple[int, int]:
        assert flags == os.WNOHANG
        if not ended:
            raise ChildProcessError
        return ended.pop(0), 0

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "waitpid", waitpid)
    monkeypatch.setattr(time, "sleep", slept.append)
    assert init.fork() == 42
    assert ended == []
    assert len(slept) == 2


def test_what_has_not_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[OSError | int] = iter([BlockingIOError(), 42])

    def fork() -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "waitpid", lambda _pid, _flags: (0, 0))
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    assert init.fork() == 42
