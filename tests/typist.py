"""Somebody at a terminal: starts a program there, reads what it shows, and types."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

PATIENCE_S = 400.0


class Typist:
    """A program in a terminal of its own; ``shown`` is all that it has shown."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        size: tuple[int, int] = (24, 80),
    ) -> None:
        """``size`` is in rows and columns."""
        self._master, self._slave = os.openpty()
        self.resize(*size)
        self.shown = ""
        self._read_to = 0
        self.process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=self._adopt,
        )

    @staticmethod
    def _adopt() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    @property
    def modes(self) -> list[object]:
        """How the terminal is set."""
        return termios.tcgetattr(self._slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window: what runs in it is told by a signal."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """Read on until the text is shown; gives what was shown before it since the last time."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.shown.find(text, self._read_to)) < 0:
            assert self._read_more(deadline), f"{text!r} is not shown, but {self.shown[self._read_to :]!r}"
        before, self._read_to = self.shown[self._read_to : found], found + len(text)
        return before

    def wait_for_end(self) -> int:
        """Read all the rest; gives the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            self._read_more(min(deadline, time.monotonic() + 0.05))
            assert time.monotonic() < deadline, f"it does not end: {self.shown!r}"
        while self._read_more(0.0):
            pass
        return self.process.returncode

    def _read_more(self, deadline: float) -> bool:
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            return False
        self.shown += os.read(self._master, 65536).decode(errors="replace")
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
