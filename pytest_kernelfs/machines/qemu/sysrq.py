"""Magic SysRq over the serial console: what a kernel tells of itself when nothing in it answers any more.

A BREAK on the line, then a key: the interrupt handler of the serial port does what the key asks for,
whatever user space does. What it prints comes over the same line, and is in the console's log as ever.
"""

from __future__ import annotations

import re
import select
import socket
import time
from pathlib import Path
from typing import final

from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.machines.qemu.command import CONSOLE_DEVICE, CONSOLE_LOGLEVEL
from pytest_kernelfs.machines.qemu.qmp import Monitor

# Every key is confirmed with such a line before anything else is done ("SysRq : " before 4.20).
_CONFIRMED = re.compile(rb"sysrq ?: ", re.IGNORECASE)
_LEVEL_BEGIN = b"Changing Loglevel"
_LEVEL_SET = re.compile(rb"Loglevel set to \d")
# The dumps are for information, which does not reach the console otherwise.
_ALL = "9"
_POLL_S = 0.02
# No confirmation is longer than this; what was looked through before need not be looked through again.
_LONGEST_LINE = 200


@final
class SerialKeys:
    """Presses keys on a console whose log is ``log``, over a connection to its input."""

    def __init__(self, monitor: Monitor, connection: socket.socket, log: Path) -> None:
        """``connection`` is closed with this."""
        self._monitor = monitor
        self._connection = connection
        self._log = log.open("rb")
        self._log.seek(0, 2)
        self._printed = bytearray()

    def close(self) -> None:
        self._connection.close()
        self._log.close()

    def ask(self, keys: str, timeout: float) -> str:
        """Press the keys one after another, and give what the kernel printed from the first on.

        What is not printed to its end within ``timeout`` seconds is cut off, and says so.

        Raises: GuestTimeout if the kernel takes no key; ChannelLost if the machine ends; InfrastructureError.
        """
        deadline = time.monotonic() + timeout
        if not self._press(_ALL, _LEVEL_SET, deadline):
            raise GuestTimeout(
                f"the kernel took no sysrq key from its serial console within {timeout:g} s: its interrupts "
                "are off, or it was built without CONFIG_MAGIC_SYSRQ_SERIAL"
            )
        start = len(self._printed)
        whole = all(self._press(key, _CONFIRMED, deadline) for key in keys)
        # The last key sets the level back. That it was taken shows that all before it has been printed.
        whole = whole and self._press(str(CONSOLE_LOGLEVEL), _LEVEL_SET, deadline)
        text = self._printed[start:]
        if whole:
            del text[text.rfind(b"\n", 0, text.rfind(_LEVEL_BEGIN)) + 1 :]
        shown = text.decode(errors="replace").replace("\r", "").lstrip("\n")
        return shown if whole else f"{shown}\n[cut off after {timeout:g} s]\n"

    def _press(self, key: str, answer: re.Pattern[bytes], deadline: float) -> bool:
        """Press one key and wait until it is answered; False if it is not in time.

        Never a second BREAK without an answer to the first: it would take the first back.
        """
        seen = len(self._printed)
        self._monitor.execute("chardev-send-break", max(deadline - time.monotonic(), 1.0), id=CONSOLE_DEVICE)
        self._connection.sendall(key.encode())
        while answer.search(self._printed, seen) is None:
            if time.monotonic() > deadline:
                return False
            self._drain()
            new = self._log.read()
            seen = max(seen, len(self._printed) - _LONGEST_LINE)
            self._printed += new
        return True

    def _drain(self) -> None:
        """Take off the line what waits there, and is in the log besides; QEMU would wait for us to do so."""
        if select.select([self._connection], [], [], _POLL_S)[0] and not self._connection.recv(1 << 16):
            raise ChannelLost("QEMU closed the console")
