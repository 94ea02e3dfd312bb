"""Block devices in the machine's memory, made by the kernel's own drivers for that and for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import mounts, ram_disks
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size

_MIB = 1 << 20
_CONFIGFS = "/sys/kernel/config"
# As many as brd makes by default.
_BRD_DEVICES = 16
# The kernel's search for disks runs in the background, and emulated processors are slow.
_SCAN_S = 30.0


class RamDisk:
    """A block device in memory: ``path`` is its device in the guest, ``size`` its bytes."""

    kind = "RAM disk"
    disk = None

    def __init__(self, resources: Resources, path: str, size: int) -> None:
        self.resources = resources
        self.path = path
        self.size = size

    def __repr__(self) -> str:
        return f"<{self.kind} {self.path} {format_size(self.size)}>"


@final
class NullBlk(RamDisk):
    """A device of the driver null_blk; ``name`` is its folder in configfs."""

    kind = "null_blk"

    def __init__(self, resources: Resources, size: int, attributes: dict[str, str]) -> None:
        self.name = resources.name("null_blk")
        path = resources.vm.guest(ram_disks.make_null_blk, self.name, attributes)
        super().__init__(resources, path, size)
        resources.on_teardown(f"null_blk device {path}", self.remove)

    def set(self, **attributes: object) -> None:
        """Change attributes while it is in use: ``badblocks="-0-7"``.

        Raises: GuestCommandError if there is no such attribute, or it cannot be changed in use.
        """
        self.resources.vm.guest(ram_disks.set_null_blk, self.name, _texts(attributes))

    def remove(self) -> None:
        """Remove it, even if it is in use; one that is gone already is no error."""
        self.resources.vm.guest(ram_disks.remove_null_blk, self.name)


class NullBlkFactory:
    """Makes null_blk devices: the ``null_blk_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(
        self, *, size: Size = "256M", block_size: int = 512, memory_backed: bool = True, **attributes: object
    ) -> NullBlk:
        """Make a device of ``size`` bytes, a multiple of 1 MiB.

        Without ``memory_backed`` it forgets what is written. ``attributes`` are those of the device's folder
        in configfs: ``badblocks="+0-7"``, ``mbps=10``, ``irqmode=2`` and ``completion_nsec=50000``,
        ``zoned=1``.

        Raises: UsageError; GuestCommandError if the kernel has no null_blk, or refuses an attribute.
        """
        capacity = _mebibytes(size, "null_blk size")
        _load(self._resources, "null_blk", "BLK_DEV_NULL_BLK", nr_devices=0)
        vm = self._resources.vm
        if vm.guest(ram_disks.mount_configfs):
            self._resources.on_teardown("mount of configfs", lambda: vm.guest(mounts.umount, _CONFIGFS))
        wanted: dict[str, object] = {
            "size": capacity,
            "blocksize": block_size,
            "memory_backed": memory_backed,
            **attributes,
        }
        return NullBlk(self._resources, capacity * _MIB, _texts(wanted))


@dataclass(frozen=True)
class ZramUsage:
    """Bytes: ``original`` of the data that a zram device holds, ``compressed``, ``memory`` used for it."""

    original: int
    compressed: int
    memory: int


@final
class Zram(RamDisk):
    """A compressed device in memory."""

    kind = "zram"

    def __init__(self, resources: Resources, size: int, algorithm: str) -> None:
        path = resources.vm.guest(ram_disks.make_zram, size, algorithm)
        super().__init__(resources, path, size)
        resources.on_teardown(f"zram device {path}", self.remove)

    def usage(self) -> ZramUsage:
        """How much it holds by now."""
        return ZramUsage(*self.resources.vm.guest(ram_disks.zram_usage, self.path))

    def remove(self) -> None:
        """Remove it; one that is gone already is no error. Raises: GuestCommandError if it is in use."""
        self.resources.vm.guest(ram_disks.remove_zram, self.path)


class ZramFactory:
    """Makes zram devices: the ``zram_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(self, *, size: Size = "256M", algorithm: str = "") -> Zram:
        """Make a device of ``size`` bytes, a multiple of 4 KiB; ``algorithm`` is the kernel's own by default.

        Raises: UsageError; GuestCommandError if the kernel has no zram, or no such algorithm.
        """
        capacity = parse_size(size, "zram size")
        if not capacity or capacity % 4096:
            raise UsageError(f"zram size {size!r} is no positive multiple of 4096 bytes")
        _load(self._resources, "zram", "ZRAM", num_devices=0)
        return Zram(self._resources, capacity, algorithm)


@final
class Brd(RamDisk):
    """A plain RAM disk of the driver brd."""

    kind = "brd"


class BrdFactory:
    """Makes plain RAM disks: the ``brd_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._made: list[Brd] = []
        resources.on_power_cut(self._made.clear)

    def __call__(self, *, size: Size = "64M") -> Brd:
        """Make a device of ``size`` bytes, the same for all of a test: it belongs to the module.

        Raises: UsageError; GuestCommandError if the kernel has no brd, or a loaded one is in use.
        """
        capacity = parse_size(size, "brd size")
        if not capacity or capacity % 4096:
            raise UsageError(f"brd size {size!r} is no positive multiple of 4096 bytes")
        if not self._made:
            _load_anew(self._resources, "brd", "BLK_DEV_RAM", rd_nr=_BRD_DEVICES, rd_size=capacity // 1024)
        elif capacity != self._made[0].size:
            raise UsageError(
                f"brd_factory: all devices of brd have one size, and {self._made[0]!r} is there already; use "
                "zram_factory or null_blk_factory for another size"
            )
        if len(self._made) == _BRD_DEVICES:
            raise UsageError(f"brd_factory: brd was loaded with {_BRD_DEVICES} devices, and all are taken")
        path: str = self._resources.vm.guest(ram_disks.find_brd, len(self._made), capacity)
        self._made.append(Brd(self._resources, path, capacity))
        return self._made[-1]


@final
class ScsiDebug(RamDisk):
    """A SCSI disk that the driver scsi_debug emulates in memory."""

    kind = "scsi_debug"

    def remove(self) -> None:
        """Unload the driver; if it is gone already, that is no error.

        Raises: GuestCommandError if the disk is in use.
        """
        self.resources.vm.guest(ram_disks.unload, "scsi_debug", self.path)


class ScsiDebugFactory:
    """Makes emulated SCSI disks: the ``scsi_debug_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._latest: ScsiDebug | None = None

    def __call__(self, *, size: Size = "64M", sector_size: int = 512, **parameters: object) -> ScsiDebug:
        """Load the driver for a disk of ``size`` bytes, a multiple of 1 MiB; a machine has one at a time.

        ``parameters`` are the module's: ``delay=0``, ``opts=…``, ``lbpu=1``, ``physblk_exp=3``.

        Raises: UsageError; GuestCommandError if the kernel has no scsi_debug, or a loaded one is in use.
        """
        capacity = _mebibytes(size, "scsi_debug size")
        if self._latest is not None and self._resources.vm.guest(ram_disks.is_loaded, "scsi_debug"):
            raise UsageError(
                f"scsi_debug_factory: {self._latest!r} is there already, and scsi_debug makes one disk at a "
                "time; remove() that before, or use another of the factories for one of them"
            )
        _load(self._resources, "sd_mod", "BLK_DEV_SD")
        wanted = {"dev_size_mb": capacity, "sector_size": sector_size, **parameters}
        _load_anew(self._resources, "scsi_debug", "SCSI_DEBUG", **wanted)
        path: str = self._resources.vm.guest(ram_disks.find_scsi_debug, capacity * _MIB, _SCAN_S)
        self._latest = ScsiDebug(self._resources, path, capacity * _MIB)
        return self._latest


def _load(resources: Resources, module: str, setting: str, **parameters: object) -> None:
    """Load a module unless it is loaded; it is unloaded with the test.

    Raises: GuestCommandError, naming the module and the setting that make it.
    """
    resources.demand_open(f"module {module}")
    vm = resources.vm
    if vm.guest(ram_disks.is_loaded, module):
        return
    try:
        vm.modprobe(module, **parameters)
    except GuestCommandError as error:
        raise GuestCommandError(f"{module} (CONFIG_{setting}) cannot be used: {error}") from None
    resources.on_teardown(f"module {module}", lambda: vm.guest(ram_disks.unload, module))


def _load_anew(resources: Resources, module: str, setting: str, **parameters: object) -> None:
    """Load a module whose parameters count only while it is loaded.

    Raises: GuestCommandError, also if it is loaded already and in use.
    """
    resources.vm.guest(ram_disks.unload, module)
    _load(resources, module, setting, **parameters)


def _texts(attributes: dict[str, object]) -> dict[str, str]:
    """Attributes as configfs takes them: a truth is 1 or 0."""
    return {key: str(int(value) if isinstance(value, bool) else value) for key, value in attributes.items()}


def _mebibytes(size: Size, what: str) -> int:
    count, rest = divmod(parse_size(size, what), _MIB)
    if rest or not count:
        raise UsageError(f"{what} {size!r} is no positive multiple of 1 MiB")
    return count
