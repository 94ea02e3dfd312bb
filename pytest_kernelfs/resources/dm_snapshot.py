"""Snapshots by dm-snapshot: what the origin held, kept by copying what is overwritten."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import dm
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.dm import SECTOR, DmDevice, whole
from pytest_kernelfs.resources.stack import Resources


@dataclass(frozen=True)
class SnapshotStatus:
    """How full a snapshot's copy-on-write device is, in bytes; ``valid`` is False once it overflowed."""

    valid: bool
    used: int
    total: int
    metadata: int


@final
class SnapshotOrigin(DmDevice):
    """What is written here is first copied to the snapshots; ``on[0]`` is the device below."""

    def __init__(self, resources: Resources, on: BlockDevice) -> None:
        line = (0, whole(on), "snapshot-origin", on.path)
        super().__init__(resources, resources.name("snapshot-origin"), [line], [on])


@final
class Snapshot(DmDevice):
    """What ``origin`` held when this was made; writes to it go to the copy-on-write device ``cow``."""

    def __init__(
        self, resources: Resources, origin: BlockDevice, cow: BlockDevice, persistent: bool, chunk: int
    ) -> None:
        """``chunk`` is in sectors."""
        self.origin = origin
        self.cow = cow
        base = origin.on[0] if isinstance(origin, SnapshotOrigin) else origin
        # A snapshot that finds metadata there takes it for its own.
        resources.vm.guest(dm.erase_start, cow.path, 4096)
        arguments = f"{base.path} {cow.path} {'P' if persistent else 'N'} {chunk}"
        line = (0, whole(base), "snapshot", arguments)
        super().__init__(resources, resources.name("snapshot"), [line], [base, cow])

    def _create(self) -> str:
        if not isinstance(self.origin, SnapshotOrigin):
            return super()._create()
        arguments = (self.name, self._lines, self.origin.name)
        path: str = self.resources.vm.guest(dm.create_beside, *arguments, timeout=300.0)
        return path

    def status(self) -> SnapshotStatus:
        """How full it is by now. Raises: GuestCommandError if the kernel says something else."""
        text = self.status_lines()[0].split(None, 3)[3]
        if text in ("Invalid", "Overflow"):
            return SnapshotStatus(False, 0, 0, 0)
        found = re.fullmatch(r"(\d+)/(\d+) (\d+)", text)
        if found is None:
            raise GuestCommandError(f"the status of the snapshot {self.name} is: {text}")
        used, total, metadata = (int(number) * SECTOR for number in found.groups())
        return SnapshotStatus(True, used, total, metadata)

    def fail(self) -> None:
        """A snapshot that leaves its table would miss what the origin loses meanwhile.

        Raises: UsageError, always.
        """
        raise UsageError(
            "a snapshot that fails does not keep up with its origin: put 'cow' on a device that can fail, "
            "such as dm_factory.linear(on=…), and fail that"
        )
