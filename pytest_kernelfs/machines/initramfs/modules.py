"""The archive of one kernel's modules: chosen by name, with all they depend on, plain (not compressed)."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.kernel import Kernel
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.tools import need

_FORMAT = "2"

# Loaded at boot: the channel, disks, and what nearly every test asks for next.
AT_BOOT = (
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_rng",
    "vmgenid",
    "loop",
    "overlay",
    "xfs",
    "ext4",
)

# In the archive, so that modprobe finds them; anything else is brought by ``vm.modprobe``.
AT_HAND = (
    *AT_BOOT,
    *"""
    btrfs f2fs erofs squashfs fuse virtiofs isofs vfat nls_ascii nls_cp437 dm_mod dm_delay dm_flakey
    dm_log_writes dm_thin_pool dm_snapshot dm_crypt dm_zero null_blk zram brd scsi_debug sd_mod virtio_scsi
    virtio_net veth bridge dummy tun sch_netem sch_tbf nf_tables crc32c_generic crc32c_intel crc32c
    xxhash_generic libcrc32c configfs binfmt_misc autofs4 quota_v2 pvpanic lz4 lzo_rle zstd ip_tables
    af_packet
    """.split(),  # noqa: SIM905  (a list this long reads best as words)
)


def build_modules(cache: Cache, kernel: Kernel) -> Path | None:
    """The modules archive of a kernel, from the cache or built; None for a kernel without modules.

    Raises: InfrastructureError.
    """
    if kernel.modules is None:
        return None
    key = hashlib.sha256(f"{_FORMAT} {kernel.checksum} {AT_HAND} {AT_BOOT}".encode()).hexdigest()[:32]
    return cache.entry("modules", key, lambda folder: _write(folder, kernel)) / "modules.cpio"


def _write(folder: Path, kernel: Kernel) -> None:
    assert kernel.modules is not None
    index = ModuleIndex(kernel.modules)
    stage = folder / "stage"
    target = stage / "lib/modules" / kernel.release
    for relative in index.closure([*AT_HAND, *index.softly_needed(AT_HAND)]):
        path = target / plain_name(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(read_module(kernel.modules / relative))
    target.mkdir(parents=True, exist_ok=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (kernel.modules / name).exists():
            shutil.copyfile(kernel.modules / name, target / name)
    _depmod(stage, kernel.release)
    with (folder / "modules.cpio").open("wb") as file:
        archive = CpioWriter(file)
        for path in sorted(target.rglob("*")):
            if path.is_file():
                archive.file(f"usr/{path.relative_to(stage)}", path.read_bytes())
        at_boot = [name for name in AT_BOOT if index.has(name)]
        archive.file("etc/kernelfs/modules", "\n".join(at_boot).encode())
        archive.finish()
    shutil.rmtree(stage)


def _depmod(root: Path, release: str) -> None:
    command = [str(need("depmod")), "-b", str(root), release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"depmod failed for the modules of {release}: {done.stderr.strip()}")


class ModuleIndex:
    """What depmod wrote into a folder: modules by their paths relative to it, and what they depend on.

    Raises: InfrastructureError if the folder has no modules.dep.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / "modules.dep"
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            raise InfrastructureError(
                f"the modules folder {folder} has no modules.dep; run 'depmod -b' on it and try again"
            ) from None
        self._needs = {head: rest.split() for head, _, rest in (line.partition(":") for line in lines)}
        self._by_name = {module_name(relative): relative for relative in self._needs}

    def has(self, name: str) -> bool:
        return _normal(name) in self._by_name

    def closure(self, names: Iterable[str]) -> list[str]:
        """The paths of the named modules that exist and of all they depend on, dependencies first."""
        order: dict[str, None] = {}
        for name in names:
            relative = self._by_name.get(_normal(name))
            if relative is not None:
                order.update(dict.fromkeys([*reversed(self._needs[relative]), relative]))
        return list(order)

    def softly_needed(self, names: Iterable[str]) -> list[str]:
        """The modules that these, or what they depend on, ask for by name while they run.

        Such as f2fs, which cannot be mounted without crc32; btrfs asks for its checksums.
        """
        asking = {module_name(relative) for relative in self.closure(names)}
        asked: dict[str, None] = {}
        for line in self._lines("modules.softdep"):
            words = line.split()
            if len(words) > 2 and words[0] == "softdep" and _normal(words[1]) in asking:
                asked.update(dict.fromkeys(word for word in words[2:] if word not in ("pre:", "post:")))
        aliases = [
            (words[1], words[2]) for words in map(str.split, self._lines("modules.alias")) if words[2:]
        ]
        behind = [module for alias, module in aliases if alias in asked]
        return list(dict.fromkeys([*filter(self.has, asked), *behind]))

    def _lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.is_file() else []


def module_name(relative: str) -> str:
    """``kernel/fs/xfs/xfs.ko.xz`` -> ``xfs``."""
    return _normal(re.sub(r"\.ko(\.\w+)?$", "", relative.rpartition("/")[2]))


def plain_name(relative: str) -> str:
    return re.sub(r"\.ko\.\w+$", ".ko", relative)


def read_module(path: Path) -> bytes:
    """A module's content, decompressed on the host: the guest would take many times as long.

    Raises: InfrastructureError if it cannot be decompressed.
    """
    if path.suffix == ".zst":
        return _unzstd(path)
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise InfrastructureError(f"cannot decompress the module {path}: {error}") from None
    return data


def _unzstd(path: Path) -> bytes:
    done = subprocess.run([str(need("zstd")), "-dcq", str(path)], capture_output=True, check=False)
    if done.returncode:
        raise InfrastructureError(f"cannot decompress the module {path}: {done.stderr.decode().strip()}")
    return done.stdout


def _normal(name: str) -> str:
    return name.replace("-", "_")
