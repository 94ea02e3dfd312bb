"""Waiting for what has its own time to happen, in the time that the machine itself had."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

# What took so many times as long as usual was not ours alone.
_MOST_TIMES = 10
# The least of so many looks is what one takes.
_FEW = 3


class Steps:
    """The time from one look to the next, of which no more counts than is usual.

    When the host lets the machine stand still for seconds, whoever is looked at stands still, too. Usual is
    up to some times ``step`` seconds or, where looks take long, some times as much as it was lately.
    """

    def __init__(self, step: float) -> None:
        self._step = step
        self._looked: float | None = None
        self._lately = deque([0.0] * _FEW, _FEW)

    def passed(self, now: float) -> float:
        """What counts of the time since the look before; nothing for the first."""
        before, self._looked = self._looked, now
        if before is None:
            return 0.0
        counted = min(now - before, _MOST_TIMES * max(self._step, min(self._lately)))
        self._lately.append(now - before)
        return counted


class Patience:
    """So many seconds for something to happen, looked for again and again.

    To give up right after the machine stood still would be to have waited for nothing; see ``Steps``.
    """

    def __init__(self, seconds: float, step: float = 0.02) -> None:
        self.left = seconds
        """The seconds that are not over yet."""
        self._step = step
        self._steps = Steps(step)
        self._steps.passed(time.monotonic())

    def wait(self, pause: Callable[[float], object] | None = None) -> bool:
        """Sleep until it is time to look again; False at once if the time is over.

        ``pause`` is called with the seconds instead, if there is something better to do than to sleep; it
        may come back sooner.
        """
        if self.left <= 0:
            return False
        (pause or time.sleep)(self._step)
        self.left -= self._steps.passed(time.monotonic())
        return True
