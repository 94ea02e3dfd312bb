"""Waiting for what has its own time to happen, in the time that the machine itself had."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

# What took so many times as long as usual was not ours alone.
_MOST_TIMES = 10
# The least of so many looks is what one takes.
_FEW = 3


class Patience:
    """So many seconds for something to happen, looked for again and again.

    When the host lets the machine stand still for seconds, whoever is waited for stands still, too; to give
    up right after that would be to have waited for nothing. Of what lies between two looks, no more
    counts than is usual: some steps, or some times as much as it was lately, where looks take long.
    """

    def __init__(self, seconds: float, step: float = 0.02) -> None:
        self.left = seconds
        """The seconds that are not over yet."""
        self._step = step
        self._looked = time.monotonic()
        self._lately = deque([0.0] * _FEW, _FEW)

    def wait(self, pause: Callable[[float], object] | None = None) -> bool:
        """Sleep until it is time to look again; False at once if the time is over.

        ``pause`` is called with the seconds instead, if there is something better to do than to sleep; it
        may come back sooner.
        """
        if self.left <= 0:
            return False
        (pause or time.sleep)(self._step)
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self.left -= min(passed, _MOST_TIMES * max(self._step, min(self._lately)))
        self._lately.append(passed)
        return True
