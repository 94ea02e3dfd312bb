"""Waiting for what has its own time to happen, in the time that the machine itself had."""

from __future__ import annotations

import time
from collections.abc import Callable

# A sleep that took so many times as long as it was to take was no sleep of ours alone.
_MOST_STEPS = 10


class Patience:
    """So many seconds for something to happen, looked for again and again.

    When the host lets the machine stand still for seconds, whoever is waited for stands still, too; to give
    up right after that would be to have waited for nothing. Of what lies between two looks, no more
    counts than a little. A look that takes long by itself counts for little as well: where looks do, there
    must be another limit beside this one.
    """

    def __init__(self, seconds: float, step: float = 0.02) -> None:
        self.left = seconds
        """The seconds that are not over yet."""
        self._step = step
        self._looked = time.monotonic()

    def wait(self, pause: Callable[[float], object] | None = None) -> bool:
        """Sleep until it is time to look again; False at once if the time is over.

        ``pause`` is called with the seconds instead, if there is something better to do than to sleep; it
        may come back sooner.
        """
        if self.left <= 0:
            return False
        (pause or time.sleep)(self._step)
        now = time.monotonic()
        self.left -= min(now - self._looked, _MOST_STEPS * self._step)
        self._looked = now
        return True
