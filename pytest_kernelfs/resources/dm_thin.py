"""Thin pools and the volumes in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import dm
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.dm import SECTOR, DmDevice, sectors, whole
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size

# THIN_METADATA_BLOCK_SIZE of drivers/md/dm-thin-metadata.h is 4 KiB.
METADATA_BLOCK = 4096


@dataclass(frozen=True)
class ThinPoolStatus:
    """What a pool says of itself.

    Numbers are blocks: of the metadata, 4 KiB each; of the data, ``block_size`` bytes. ``mode`` is "rw",
    "ro", "out_of_data_space" or "Fail"; in the last case all numbers are 0.
    """

    used_metadata: int
    total_metadata: int
    used_data: int
    total_data: int
    mode: str
    needs_check: bool
    transaction: int
    block_size: int

    @property
    def used_data_bytes(self) -> int:
        return self.used_data * self.block_size

    @property
    def used_metadata_bytes(self) -> int:
        return self.used_metadata * METADATA_BLOCK

    @classmethod
    def parse(cls, text: str, block_size: int) -> ThinPoolStatus:
        """Read the pool's line of ``dmsetup status``, behind the target's name.

        Raises: GuestCommandError if the kernel says something else.
        """
        words = text.split()
        if words in (["Fail"], ["Error"]):
            return cls(0, 0, 0, 0, "Fail", False, 0, block_size)
        try:
            metadata, data = (tuple(int(part) for part in word.split("/")) for word in words[1:3])
            return cls(
                used_metadata=metadata[0],
                total_metadata=metadata[1],
                used_data=data[0],
                total_data=data[1],
                mode=words[4],
                needs_check="needs_check" in words[5:],
                transaction=int(words[0]),
                block_size=block_size,
            )
        except (ValueError, IndexError):
            raise GuestCommandError(f"the status of a thin pool cannot be understood: {text!r}") from None


@final
class Thin(DmDevice):
    """A volume of the pool ``pool``: it takes blocks from there when it is written to."""

    def __init__(
        self, resources: Resources, pool: ThinPool, number: int, length: int, origin: Thin | None
    ) -> None:
        """``length`` is in sectors; ``origin`` is what this is a snapshot of."""
        self.pool = pool
        self.number = number
        self.origin = origin
        line = (0, length, "thin", f"{pool.path} {number}")
        super().__init__(resources, resources.name("thin"), [line], [pool])

    def _create(self) -> str:
        wish = (
            f"create_snap {self.number} {self.origin.number}" if self.origin else f"create_thin {self.number}"
        )
        beside = self.origin.name if self.origin else ""
        path: str = self.resources.vm.guest(
            dm.make_thin, self.pool.name, wish, self.name, self._lines, beside, timeout=300.0
        )
        return path

    def mapped(self) -> int:
        """Bytes that it has blocks of the pool for, those shared with others included."""
        word = self.status_lines()[0].split()[3]
        if not word.isdigit():
            raise GuestCommandError(f"the status of the thin volume {self.name} is: {word}")
        return int(word) * SECTOR

    def delete(self) -> None:
        """Remove it, and give its blocks back to the pool."""
        self.pool.delete(self)


@final
class ThinPool(DmDevice):
    """A pool for thin volumes; ``block_size`` is in bytes."""

    def __init__(
        self,
        resources: Resources,
        meta: BlockDevice,
        data: BlockDevice,
        block: int,
        low_water: int,
        features: Sequence[str],
    ) -> None:
        """``block`` is in sectors."""
        self.meta = meta
        self.data = data
        self.block_size = block * SECTOR
        self._next = 1
        # A pool is made anew where the first block of the metadata is blank.
        resources.vm.guest(dm.erase_start, meta.path, METADATA_BLOCK)
        words = " ".join(features).split()
        more = f" {len(words)} {' '.join(words)}" if words else ""
        line = (0, whole(data), "thin-pool", f"{meta.path} {data.path} {block} {low_water}{more}")
        super().__init__(resources, resources.name("thin-pool"), [line], [data, meta])

    def thin(self, *, size: Size) -> Thin:
        """Make a volume; all volumes together may be larger than the pool. Raises: GuestCommandError."""
        return self._volume(sectors(size, "thin volume size"), None)

    def snapshot(self, *, of: Thin) -> Thin:
        """Make a volume that begins as a copy of another; that one is suspended, its file system frozen.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        if not isinstance(of, Thin) or of.pool is not self:
            raise UsageError(f"thin_pool.snapshot: {of!r} is no volume of {self!r}")
        return self._volume(whole(of), of)

    def delete(self, volume: Thin) -> None:
        """Remove a volume, and have its blocks back.

        Raises: UsageError if it is another pool's; GuestCommandError if it is in use, or gone already.
        """
        if volume.pool is not self:
            raise UsageError(f"thin_pool.delete: {volume!r} is no volume of {self!r}")
        volume.remove()
        self.message(f"delete {volume.number}")

    def status(self) -> ThinPoolStatus:
        """How full it is by now."""
        return ThinPoolStatus.parse(self.status_lines()[0].split(None, 3)[3], self.block_size)

    def _volume(self, length: int, origin: Thin | None) -> Thin:
        number = self._next
        self._next += 1
        return Thin(self.resources, self, number, length, origin)
