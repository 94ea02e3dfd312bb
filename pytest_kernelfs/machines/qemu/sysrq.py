"""The serial console of a QEMU of ours, as files and as a line that takes sysrq keys.

The console's output goes into a file, its input comes from a pipe that QEMU keeps open. A socket would do
for both, but QEMU then waits for whoever is connected, and logs twice what it has to send twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.machines.qemu.command import CONSOLE, CONSOLE_DEVICE, CONSOLE_PIPE
from pytest_kernelfs.machines.qemu.qmp import Monitor


def make_console(folder: Path) -> None:
    """Make the files that a machine's console is connected to. Raises: InfrastructureError."""
    with explain_os_errors("make a machine's console", folder, "TMPDIR"):
        (folder / CONSOLE).touch()
        (folder / f"{CONSOLE_PIPE}.out").symlink_to(CONSOLE)
        os.mkfifo(folder / f"{CONSOLE_PIPE}.in", 0o600)


@final
class ConsoleLine:
    """The console of a machine as a ``serial_keys.SerialLine``; to be closed."""

    def __init__(self, monitor: Monitor, folder: Path, ended: Callable[[], bool]) -> None:
        """``folder`` is the machine's; ``ended`` tells whether it has ended. Raises: OSError if it has."""
        self._monitor = monitor
        self._ended = ended
        self._input = os.open(folder / f"{CONSOLE_PIPE}.in", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._log = (folder / CONSOLE).open("rb")
        self._log.seek(0, os.SEEK_END)

    def send_break(self, timeout: float) -> None:
        """See ``SerialLine``, as all of these."""
        self._monitor.execute("chardev-send-break", timeout, id=CONSOLE_DEVICE)

    def type(self, text: bytes) -> None:
        os.write(self._input, text)

    def read(self) -> bytes:
        return self._log.read()

    def ended(self) -> bool:
        return self._ended()

    def close(self) -> None:
        os.close(self._input)
        self._log.close()
