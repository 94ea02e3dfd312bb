"""A host that has as many threads as it may have."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("can't start new thread")


@contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While the block runs, no thread can be started in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        patch.setattr(_thread, "start_new_thread", _refuse)
        yield
