"""Makes device-mapper devices; the methods have the names of the kernel's targets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import dm
from pytest_kernelfs.resources.block import BlockDevice, check_device
from pytest_kernelfs.resources.dm import DmDevice, parse_table, sectors, whole
from pytest_kernelfs.resources.dm_faults import Delay, Flakey
from pytest_kernelfs.resources.dm_log_writes import LogWrites
from pytest_kernelfs.resources.dm_snapshot import Snapshot, SnapshotOrigin
from pytest_kernelfs.resources.dm_thin import ThinPool
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, parse_size

# Targets in a module that is not named after them.
_MODULES = {
    "thin": "dm_thin_pool",
    "snapshot-origin": "dm_snapshot",
    "snapshot-merge": "dm_snapshot",
    "unstriped": "dm_unstripe",
}
# What aes-xts, the default, is made of in the kernel.
_CIPHER_MODULES = (("ecb", "CRYPTO_ECB"), ("xts", "CRYPTO_XTS"))


class DmFactory:
    """Makes device-mapper devices: the ``dm_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._known: set[str] = set()
        resources.on_power_cut(self._known.clear)

    def linear(self, *, on: BlockDevice, offset: Size = 0, size: Size | None = None) -> DmDevice:
        """A part of a device, ``size`` bytes from ``offset`` on; by default all that follows.

        Raises: UsageError; GuestCommandError with the kernel's reason, like all of these.
        """
        check_device("dm_factory.linear: on", on)
        first = sectors(offset, "linear offset") if offset else 0
        length = whole(on) - first if size is None else sectors(size, "linear size")
        if length < 1 or first + length > whole(on):
            raise UsageError(f"dm_factory.linear: offset {offset!r} and size {size!r} reach beyond {on!r}")
        return self._plain("linear", length, f"{on.path} {first}", on)

    def delay(self, *, on: BlockDevice, read_ms: int = 0, write_ms: int = 0, flush_ms: int = 0) -> Delay:
        """A slow device: each read, write and flush takes so many milliseconds more; ``set`` changes that."""
        check_device("dm_factory.delay: on", on)
        self._need("delay")
        return Delay(self._resources, on, read_ms, write_ms, flush_ms)

    def flakey(self, *, on: BlockDevice, up: int = 1, down: int = 0, features: Sequence[str] = ()) -> Flakey:
        """A device that is up and down in turns, for so many seconds; by default up until ``fail``.

        ``features`` are what it does when down: "drop_writes", "error_writes", "error_reads" and others that
        the kernel knows, with their arguments; without any, all I/O fails.
        """
        check_device("dm_factory.flakey: on", on)
        self._need("flakey")
        return Flakey(self._resources, on, up, down, features)

    def error(self, *, size: Size) -> DmDevice:
        """A device whose every read and write fails with EIO."""
        return self._plain("error", sectors(size, "error size"))

    def zero(self, *, size: Size) -> DmDevice:
        """A device of any size that reads as zeros, and forgets what is written."""
        return self._plain("zero", sectors(size, "zero size"))

    def log_writes(self, *, on: BlockDevice, log: BlockDevice) -> LogWrites:
        """A device that logs every write to ``log``, to be replayed to any mark."""
        check_device("dm_factory.log_writes: on", on)
        check_device("dm_factory.log_writes: log", log)
        if on is log:  # the kernel takes it, and writes the log over the data
            raise UsageError(f"dm_factory.log_writes: on and log are both {on!r}; give two devices")
        self._need("log-writes")
        return LogWrites(self._resources, on, log)

    def thin_pool(
        self,
        *,
        meta: BlockDevice,
        data: BlockDevice,
        block_size: Size = "64K",
        low_water: int = 0,
        features: Sequence[str] = (),
    ) -> ThinPool:
        """A new pool for thin volumes, its metadata on ``meta``.

        ``low_water`` is in blocks. ``features`` are the kernel's: "error_if_no_space", "ignore_discard",
        "no_discard_passdown", "skip_block_zeroing", "read_only".
        """
        check_device("dm_factory.thin_pool: meta", meta)
        check_device("dm_factory.thin_pool: data", data)
        block = parse_size(block_size, "thin pool block size")
        if not 64 << 10 <= block <= 1 << 30 or block % (64 << 10):
            raise UsageError(f"thin pool block size {block_size!r} is no multiple of 64K up to 1G")
        self._need("thin-pool")
        return ThinPool(self._resources, meta, data, block // 512, low_water, features)

    def snapshot_origin(self, *, on: BlockDevice) -> SnapshotOrigin:
        """A device to write to where snapshots of it are to be made."""
        check_device("dm_factory.snapshot_origin: on", on)
        self._need("snapshot-origin")
        return SnapshotOrigin(self._resources, on)

    def snapshot(
        self,
        *,
        origin: BlockDevice,
        cow: BlockDevice,
        persistent: bool = True,
        chunk_size: Size = "4K",
    ) -> Snapshot:
        """A snapshot of ``origin``, with what differs from it on ``cow``.

        An origin that is written to afterwards has to be made by ``snapshot_origin``; it is suspended while
        the snapshot is made, its file system frozen. Any other device must not change.
        """
        check_device("dm_factory.snapshot: origin", origin)
        check_device("dm_factory.snapshot: cow", cow)
        chunk = sectors(chunk_size, "snapshot chunk size")
        if chunk & (chunk - 1):
            raise UsageError(f"snapshot chunk size {chunk_size!r} is no power of two")
        self._need("snapshot")
        return Snapshot(self._resources, origin, cow, persistent, chunk)

    def crypt(
        self, *, on: BlockDevice, cipher: str = "aes-xts-plain64", key: bytes | None = None
    ) -> DmDevice:
        """An encrypted device; by default with 64 random bytes as its key. ``table()`` shows the key."""
        check_device("dm_factory.crypt: on", on)
        if key is not None and not isinstance(key, (bytes, bytearray)):
            raise UsageError(f"dm_factory.crypt: the key {key!r} is not bytes")
        secret = secrets.token_bytes(64) if key is None else key
        arguments = f"{cipher} {secret.hex() or '-'} 0 {on.path} 0"
        for module, setting in _CIPHER_MODULES:
            # The kernel asks for them by itself, but finds only what the machine was given.
            if self._resources.vm.kernel.config_option(setting) == "m":
                self._load(module, setting, "the device-mapper target crypt")
        return self._plain("crypt", whole(on), arguments, on)

    def table(self, name: str, lines: Sequence[str], on: Sequence[BlockDevice] = ()) -> DmDevice:
        """A device with any table, in lines as for dmsetup: "0 2048 linear /dev/vda 0".

        ``name`` is what dmsetup calls it; ``on`` are the test's devices among those it lies on.
        """
        parsed = parse_table(lines)
        for device in on:
            check_device("dm_factory.table: on", device)
        if not name or len(name.encode()) > 127 or "/" in name:
            raise UsageError(f"dm_factory.table: {name!r} is no name for a device")
        self._need(*(line[2] for line in parsed))
        return DmDevice(self._resources, name, parsed, on)

    def _plain(self, target: str, length: int, arguments: str = "", *on: BlockDevice) -> DmDevice:
        self._need(target)
        line = (0, length, target, arguments)
        return DmDevice(self._resources, self._resources.name(target), [line], on)

    def _need(self, *targets: str) -> None:
        """Have the kernel know these targets.

        Raises: GuestCommandError, naming the module and the setting, if it has no such target.
        """
        # "error", which all can be turned into, stands for device-mapper itself.
        missing = {"error", *targets} - self._known
        if not missing:
            return
        missing -= self._available()
        if "error" in missing:
            self._load("dm_mod", "BLK_DEV_DM", "device-mapper")
            missing -= {"error", *self._available()}
        for target in sorted(missing):
            module = _MODULES.get(target, f"dm_{target.replace('-', '_')}")
            self._load(module, module.upper(), f"the device-mapper target {target}")
        self._known.update(targets, ["error"])

    def _available(self) -> set[str]:
        self._known.update(self._resources.vm.guest(dm.available_targets))
        return self._known

    def _load(self, module: str, setting: str, what: str) -> None:
        try:
            self._resources.vm.modprobe(module)
        except GuestCommandError as error:
            raise GuestCommandError(f"{what} needs the module {module} (CONFIG_{setting}): {error}") from None
