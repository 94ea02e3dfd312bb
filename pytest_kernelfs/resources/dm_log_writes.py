"""Devices that log every write, so that the device can be had again as it was at any mark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import write_log
from pytest_kernelfs.resources.block import BlockDevice, check_device
from pytest_kernelfs.resources.dm import DmDevice, whole
from pytest_kernelfs.resources.stack import Resources

_PATIENCE_S = 20.0


@final
class LogWrites(DmDevice):
    """A device whose writes go to ``log`` too, in the order in which they became durable."""

    def __init__(self, resources: Resources, on: BlockDevice, log: BlockDevice) -> None:
        self.log = log
        self._seen = (0, 0)
        line = (0, whole(on), "log-writes", f"{on.path} {log.path}")
        super().__init__(resources, resources.name("log-writes"), [line], [on, log])

    def mark(self, name: str) -> None:
        """Note in the log that this point was reached, and wait until that is written.

        What is durable lies before the mark; what was written but not flushed yet, behind it.

        Raises: UsageError for a name with spaces, or one too long; GuestCommandError if the log is full.
        """
        # The name has to fit into a sector, behind the entry.
        if not isinstance(name, str) or not re.fullmatch(r"[!-~]{1,256}", name):
            raise UsageError(f"log_writes.mark: {name!r} is no word of 1 to 256 ASCII characters")
        self.message(f"mark {name}")
        found: Sequence[int] = self.resources.vm.guest(
            write_log.wait_for_mark, self.log.path, name, *self._seen, _PATIENCE_S, timeout=60.0
        )
        self._seen = (found[0], found[1])

    def marks(self) -> list[str]:
        """The marks that are in the log, in order; "dm-log-writes-end" is the kernel's own."""
        names: list[str] = self.resources.vm.guest(write_log.marks, self.log.path)
        return names

    def replay(self, *, to: str, onto: BlockDevice, blank: bool = True) -> int:
        """Write to the device ``onto`` all that was logged before the mark ``to``; the first of that name.

        With ``blank``, onto zeros, as is right if the logged device was blank itself. Otherwise, onto what is
        there: what the logged device held before, or the state at an earlier mark. What was discarded
        reads as zeros. Gives the bytes written.

        Raises: UsageError; GuestCommandError if there is no such mark.
        """
        check_device("log_writes.replay: onto", onto)
        if onto.size < self.size:
            raise UsageError(f"log_writes.replay: {onto!r} is smaller than {self!r}")
        if onto.path in (self.path, self.log.path, self.on[0].path):
            raise UsageError(f"log_writes.replay: {onto!r} is in use by {self!r}; give another device")
        arguments = (self.log.path, onto.path, to, blank)
        _, written = self.resources.vm.guest(write_log.replay, *arguments, timeout=600.0)
        return int(written)

    def fail(self) -> None:
        """A log that leaves the table is over. Raises: UsageError, always."""
        raise UsageError(
            "a log of writes ends when its device is made to fail: put it on a device that can fail, such as "
            "dm_factory.linear(on=…), and fail that"
        )
