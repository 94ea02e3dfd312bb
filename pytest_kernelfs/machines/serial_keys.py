"""Magic SysRq over a serial console: what a kernel tells when nothing in it answers any more.

A BREAK on the line, then a key: the interrupt handler of the serial port does what the key asks for,
whatever user space does. What it prints is on the console.
"""

from __future__ import annotations

import re
import time
from typing import Protocol, final

from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.machines.boot import CONSOLE_LOGLEVEL
from pytest_kernelfs.machines.channel import ChannelLost

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


class SerialLine(Protocol):
    """The far end of a machine's serial port."""

    def send_break(self, timeout: float) -> None:
        """Hold the line for a moment. Raises: InfrastructureError."""

    def type(self, text: bytes) -> None:
        """Send characters. Raises: OSError, InfrastructureError."""

    def read(self) -> bytes:
        """What was printed since the last time; of that before the first nothing."""

    def ended(self) -> bool:
        """Whether the machine has ended."""


@final
class SerialKeys:
    """Presses keys on the console of a machine."""

    def __init__(self, line: SerialLine) -> None:
        self._line = line
        self._printed = bytearray()
        self.level_is_back = False
        """Whether the kernel prints no more on its console than before, once the keys were pressed."""

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
        self._line.send_break(max(deadline - time.monotonic(), 1.0))
        self._line.type(key.encode())
        while answer.search(self._printed, seen) is None:
            if time.monotonic() > deadline:
                return False
            if self._line.ended():
                raise ChannelLost("the machine ended")
            seen = max(seen, len(self._printed) - _LONGEST_LINE)
            new = self._line.read()
            if not new:
                time.sleep(_POLL_S)
            self._printed += new
        return True
