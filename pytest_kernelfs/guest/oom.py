"""Who goes first when memory runs out: what tests run, long before the conversation that runs it.

The conversation stays killable as the very last: a kernel that finds nothing to kill panics.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LAST = "-999"
_FIRST = "0"
_switching = threading.Lock()
_protected = False


def protect() -> None:
    """Have this process killed last; the processes it forks are as killable as any."""
    global _protected
    _protected = True
    _set_score(_LAST)
    os.register_at_fork(after_in_child=_give_up)


@contextmanager
def expendable() -> Iterator[None]:
    """What is started in the block, by a subprocess.Popen too, is as killable as any process.

    A program inherits the score of the process that starts it and may fork before anybody could set its own:
    so the score of this process is another for that moment.
    """
    if not _protected:
        yield
        return
    with _switching:
        _set_score(_FIRST)
        try:
            yield
        finally:
            _set_score(_LAST)


def _give_up() -> None:
    global _protected, _switching
    _protected = False
    _switching = threading.Lock()
    _set_score(_FIRST)


def _set_score(score: str) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(score)
    except OSError:
        pass  # no /proc, or no such privilege: nothing is protected, and all works
