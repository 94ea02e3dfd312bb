"""Device-mapper devices: what all of them can do, whatever their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_kernelfs.arguments import check_texts
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import dm
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size

if TYPE_CHECKING:
    from pytest_kernelfs.resources.disk import Disk

SECTOR = 512
Line = tuple[int, int, str, str]
"""A line of a table: first sector, sectors, target, the target's arguments."""


class DmDevice:
    """A device-mapper device.

    ``path`` is its device in the guest, ``name`` what dmsetup calls it, ``on`` the devices that it lies on.
    """

    def __init__(
        self, resources: Resources, name: str, lines: Sequence[Line], on: Sequence[BlockDevice] = ()
    ) -> None:
        resources.demand_open(f"device-mapper device {name}")
        self.resources = resources
        self.name = name
        self.on = tuple(on)
        self.failing = False
        """Whether ``fail`` has been called, and ``heal`` not since."""
        self._lines = list(lines)
        self.path = self._create()
        resources.on_teardown(f"device-mapper device {name}", self.remove)

    def __repr__(self) -> str:
        targets = "+".join(dict.fromkeys(line[2] for line in self._lines))
        below = f" on {', '.join(device.path for device in self.on)}" if self.on else ""
        return f"<dm {targets} {self.path} {format_size(self.size)}{below}>"

    def _create(self) -> str:
        path: str = self.resources.vm.guest(dm.create, self.name, self._lines)
        return path

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(line[1] for line in self._lines) * SECTOR

    @property
    def disk(self) -> Disk | None:
        """The disk of the machine below it, None if that is memory; of several devices, the first one's."""
        return next((device.disk for device in self.on if device.disk is not None), None)

    def table(self) -> list[str]:
        """The lines of its table, as ``dmsetup table`` prints them."""
        return [_shown(line) for line in self.resources.vm.guest(dm.table, self.name)]

    def status_lines(self) -> list[str]:
        """What its targets say of themselves, as ``dmsetup status`` prints it."""
        return [_shown(line) for line in self.resources.vm.guest(dm.table, self.name, True)]

    def reload(self, lines: Sequence[str]) -> None:
        """Put another table in place while the device is in use, without flushing or freezing anything.

        Raises: UsageError; GuestCommandError with the kernel's reason, and the old table stays.
        """
        parsed = parse_table(lines)
        self.resources.vm.guest(dm.swap, self.name, parsed)
        self._lines = parsed
        self.failing = False

    def fail(self) -> None:
        """From now on all I/O fails with EIO, that of file systems on it too. It is healed with the test."""
        self._switch(self._failing_lines())
        self.failing = True
        self.resources.on_teardown(f"failing of {self.name}", self._heal_what_is_there, first=True)

    def heal(self) -> None:
        """End what ``fail`` began."""
        self._switch(self._lines)
        self.failing = False

    def suspend(self, *, flush: bool = True, freeze: bool = True) -> None:
        """Hold back all I/O until ``resume``, at the latest until the test is over.

        First, what is in flight ends (``flush``), and a file system on the device writes back what is dirty
        and freezes (``freeze``).
        """
        # Registered before: a suspension that was interrupted has begun none the less.
        self.resources.on_teardown(f"suspension of {self.name}", self._resume_what_is_there, first=True)
        self.resources.vm.guest(dm.suspend, self.name, flush, freeze, timeout=300.0)

    def resume(self) -> None:
        """Let I/O go on."""
        self.resources.vm.guest(dm.resume, self.name)

    @contextmanager
    def suspended(self, *, flush: bool = True, freeze: bool = True) -> Iterator[None]:
        """``suspend`` for as long as a ``with`` block lasts."""
        vm = self.resources.vm
        machine = vm.machine
        self.suspend(flush=flush, freeze=freeze)
        try:
            yield
        finally:
            if vm.is_still(machine):
                vm.guest(dm.resume, self.name, True)

    @property
    def is_suspended(self) -> bool:
        """Whether I/O is held back."""
        return bool(self.resources.vm.guest(dm.is_suspended, self.name))

    def message(self, text: str, *, sector: int = 0) -> str:
        """Send a message to the target at ``sector``; gives its answer, mostly "".

        Raises: GuestCommandError with the kernel's reason.
        """
        return str(self.resources.vm.guest(dm.message, self.name, text, sector))

    def remove(self) -> None:
        """Remove it; one that is gone already is no error.

        Raises: GuestCommandError if it is still in use after a few seconds.
        """
        self.resources.vm.guest(dm.remove, self.name)

    def _healthy_lines(self) -> list[Line]:
        return self._lines

    def _failing_lines(self) -> list[Line]:
        return [(0, self.size // SECTOR, "error", "")]

    def _set_lines(self, lines: list[Line]) -> None:
        """Have another table from now on; while it fails, from when it is healed."""
        if not self.failing:
            self._switch(lines)
        self._lines = lines

    def _switch(self, lines: list[Line]) -> None:
        self.resources.vm.guest(dm.swap, self.name, lines)

    def _heal_what_is_there(self) -> None:
        if self.failing:
            self.resources.vm.guest(dm.swap, self.name, self._healthy_lines(), True)
            self.failing = False

    def _resume_what_is_there(self) -> None:
        self.resources.vm.guest(dm.resume, self.name, True)


def _shown(line: Line) -> str:
    return " ".join(str(word) for word in line).rstrip()


def parse_table(lines: Sequence[str]) -> list[Line]:
    """Lines as dmsetup takes them: "0 2048 linear /dev/vda 0". Raises: UsageError."""
    parsed: list[Line] = []
    for text in check_texts("device-mapper table", lines):
        words = text.split(None, 3)
        if len(words) < 3 or not (words[0].isdigit() and words[1].isdigit()):
            raise UsageError(
                f"device-mapper table: the line {text!r} is not 'FIRST_SECTOR SECTORS TARGET ARGUMENTS'"
            )
        parsed.append((int(words[0]), int(words[1]), words[2], words[3] if len(words) > 3 else ""))
    if not parsed:
        raise UsageError("device-mapper table: it has no lines")
    return parsed


def sectors(size: Size, what: str) -> int:
    """A size in sectors. Raises: UsageError, naming ``what``, unless it is a multiple of one above zero."""
    count, rest = divmod(parse_size(size, what), SECTOR)
    if rest or not count:
        raise UsageError(f"{what} {size!r} is no positive multiple of {SECTOR} bytes")
    return count


def whole(device: BlockDevice) -> int:
    """The sectors of a device."""
    return device.size // SECTOR
