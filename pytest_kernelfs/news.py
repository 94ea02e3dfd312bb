"""News of the run itself, for whoever watches it: why it takes long, or what was left on the host.

No warnings: those are about a test, and a run may make errors of them. That a host is crowded is no verdict.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str], None]


def print_news(text: str) -> None:
    """What is done with news that nobody listens for."""
    print(f"kernelfs: {text}", file=sys.stderr, flush=True)


_listeners: list[Listener] = [print_news]


def tell(text: str) -> None:
    """Have whoever listens know."""
    _listeners[-1](text)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have all news go to ``listener`` until the block ends."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
