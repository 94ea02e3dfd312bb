"""The terminal that a user sits at."""

from __future__ import annotations

import os
import signal
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

from pytest_kernelfs.cli.attachment import STDIN

WAY_OUT = b"\x1d"
_WAY_OUT_TIMES = 3
_WAY_OUT_WITHIN_S = 2.0
_TERMINFO_FOLDERS = ("/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo")


class LeftMachine(Exception):
    """The user pressed the keys that leave the machine, whatever state it is in."""


def size() -> tuple[int, int]:
    """Rows and columns of the terminal."""
    columns, rows = os.get_terminal_size(STDIN)
    return rows, columns


@contextmanager
def raw() -> Iterator[None]:
    """Hand every key on as it is pressed, until the block ends, however it does."""
    before = termios.tcgetattr(STDIN)

    def again(*_: Any) -> None:
        """The shell that stopped us has set the terminal to its own needs."""
        tty.setraw(STDIN, termios.TCSANOW)

    previous = signal.signal(signal.SIGCONT, again)
    try:
        tty.setraw(STDIN, termios.TCSANOW)
        yield
    finally:
        signal.signal(signal.SIGCONT, previous)
        try:
            # To wait until all is shown may take for ever.
            termios.tcsetattr(STDIN, termios.TCSANOW, before)
        except termios.error:
            pass  # it was closed


@final
class Keys:
    """What is typed at the terminal."""

    def __init__(self) -> None:
        self._pressed: deque[float] = deque(maxlen=_WAY_OUT_TIMES)

    def fileno(self) -> int:
        return STDIN

    def read(self, most: int) -> bytes | None:
        """Raises: LeftMachine after the keys that leave it, or when the terminal is gone."""
        try:
            data = os.read(STDIN, most)
        except OSError:
            data = b""
        if not data or self._leaves(data, time.monotonic()):
            raise LeftMachine
        return data

    def _leaves(self, data: bytes, now: float) -> bool:
        for byte in data:
            if byte != WAY_OUT[0]:
                self._pressed.clear()
                continue
            self._pressed.append(now)
            if len(self._pressed) == _WAY_OUT_TIMES and now - self._pressed[0] <= _WAY_OUT_WITHIN_S:
                return True
        return False


def description(term: str) -> bytes | None:
    """What terminfo says of a terminal of that name; None if this host does not know it."""
    own = [os.environ.get("TERMINFO", ""), str(Path.home() / ".terminfo")]
    if not term or "/" in term:
        return None
    for folder in [*own, *_TERMINFO_FOLDERS]:
        for letter in (term[0], f"{ord(term[0]):x}"):
            try:
                return Path(folder, letter, term).read_bytes()
            except OSError:
                continue
    return None
