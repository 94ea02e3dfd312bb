"""Time that passes in a machine, however its host lets it run."""

from __future__ import annotations

import time


def live(seconds: float) -> None:
    """For ``vm.call``: let all that runs in the machine go on for so long.

    In many short sleeps: when the host lets the machine stand still for seconds, one of them alone is
    spoiled, and whoever else waits in the machine has its turns in the others.
    """
    for _ in range(max(2, round(seconds / 0.05))):
        time.sleep(0.05)
