"""The serial console, and magic SysRq over it: what a kernel tells when nothing in it answers any more.

A BREAK on the line, then a key: the interrupt handler of the serial port does what the key asks for,
whatever user space does. What it prints is in the console's log as ever.

The console's output goes into a file, its input comes from a pipe that QEMU keeps open. A socket would do
for both, but QEMU then waits for whoever is connected, and logs twice what it has to send twice.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.machines.qemu.command import CONSOLE, CONSOLE_DEVICE, CONSOLE_LOGLEVEL, CONSOLE_PIPE
from pytest_kernelfs.machines.qemu.qmp import Monitor

# Every key is confirmed with such a line before anything else is done ("SysRq : " before 4.20).
_CONFIRMED = re.compile(rb"sysrq ?: ", re.IGNORECASE)
_LEVEL_BEGIN = b"Changing Loglevel"
_LEVEL_SET = re.compile(rb"Loglevel set to \d")
# The dumps are for information, which does not reach the console otherwise.
_ALL = "9"
# Crash, reboot, power off. QEMU 7.2 never ends if a command of the monitor reaches it while it is ending.
_ENDING = "cbo"
_NOTHING = re.compile(rb"(?!)")
_POLL_S = 0.005
# No confirmation is longer than this; what was looked through before need not be looked through again.
_LONGEST_LINE = 200


def make_console(folder: Path) -> None:
    """Make the files that a machine's console is connected to. Raises: InfrastructureError."""
    with explain_os_errors("make a machine's console", folder, "TMPDIR"):
        (folder / CONSOLE).touch()
        (folder / f"{CONSOLE_PIPE}.out").symlink_to(CONSOLE)
        os.mkfifo(folder / f"{CONSOLE_PIPE}.in", 0o600)


@final
class SerialKeys:
    """Presses keys on the console of a machine."""

    def __init__(self, monitor: Monitor, folder: Path, ended: Callable[[], bool]) -> None:
        """``folder`` is the machine's; ``ended`` tells whether it has ended. Raises: OSError if it has."""
        self._monitor = monitor
        self._ended = ended
        self._input = os.open(folder / f"{CONSOLE_PIPE}.in", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._log = (folder / CONSOLE).open("rb")
        self._log.seek(0, os.SEEK_END)
        self._printed = bytearray()
        self.level_is_back = False
        """Whether the kernel prints no more on its console than before, once the keys were pressed."""

    def close(self) -> None:
        os.close(self._input)
        self._log.close()

    def ask(self, keys: str, timeout: float) -> str:
        """Press the keys one after another, and give what the kernel printed from the first on.

        What is not printed to its end within ``timeout`` seconds is cut off, and says so.

        Raises: GuestTimeout if the kernel takes no key; ChannelLost if the machine ends; InfrastructureError.
        """
        deadline = time.monotonic() + timeout
        if not self._press(_ALL, _LEVEL_SET, deadline):
            raise GuestTimeout(
                f"the kernel took no sysrq key from its serial console within {timeout:.3g} s: its "
                "interrupts are off, or it was built without CONFIG_MAGIC_SYSRQ_SERIAL"
            )
        start = len(self._printed)
        whole = all(self._press(key, _NOTHING if key in _ENDING else _CONFIRMED, deadline) for key in keys)
        # The last key sets the level back. That it was taken shows that all before it has been printed.
        whole = whole and self._press(str(CONSOLE_LOGLEVEL), _LEVEL_SET, deadline)
        self.level_is_back = whole
        text = self._printed[start:]
        if whole:
            del text[text.rfind(b"\n", 0, text.rfind(_LEVEL_BEGIN)) + 1 :]
        shown = text.decode(errors="replace").replace("\r", "").lstrip("\n")
        return shown if whole else f"{shown}\n[cut off after {timeout:.3g} s]\n"

    def _press(self, key: str, answer: re.Pattern[bytes], deadline: float) -> bool:
        """Press one key and wait until it is answered; False if it is not in time.

        Never a second BREAK without an answer to the first: it would take the first back.
        """
        seen = len(self._printed)
        self._monitor.execute("chardev-send-break", max(deadline - time.monotonic(), 1.0), id=CONSOLE_DEVICE)
        os.write(self._input, key.encode())
        while answer.search(self._printed, seen) is None:
            if time.monotonic() > deadline:
                return False
            if self._ended():
                raise ChannelLost("QEMU ended")
            seen = max(seen, len(self._printed) - _LONGEST_LINE)
            new = self._log.read()
            if not new:
                time.sleep(_POLL_S)
            self._printed += new
        return True
