"""The archive that every kernel shares: Python, shell, tools, their libraries, and the guest's own code."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.initramfs import python
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.initramfs.lift import (
    add_merged_layout,
    add_with_symlinks,
    guest_path,
    put_on_path,
    shared_libraries,
)
from pytest_kernelfs.tools import TOOLS, find, need

_FORMAT = "3"  # raised whenever the layout of the archive changes

# Lifted when the host has them; a command that is missing is missing in the guest, no more.
_COMMANDS = """
    sh bash ls cat cp mv rm ln mkdir rmdir mkfifo mknod touch dd df du stat sync sleep echo printf head tail
    wc sort uniq cut tr od tee true false test env id uname hostname date uptime seq truncate chmod chown
    readlink realpath timeout dirname basename mktemp nproc sha256sum md5sum cmp find xargs grep sed mawk awk
    tar ps free kill pgrep pkill vmstat mount umount findmnt lsblk losetup blkid blockdev fsfreeze fallocate
    flock unshare nsenter setpriv dmesg swapon swapoff mkswap wipefs chroot pivot_root hwclock taskset ionice
    fstrim prlimit setsid sysctl
    stty tty clear tput less top watch which yes
    mkfs.xfs xfs_repair xfs_db xfs_io xfs_growfs xfs_quota xfs_info xfs_freeze xfs_logprint xfs_admin
    xfs_spaceman xfs_copy xfs_mdrestore xfs_metadump xfs_fsr xfs_estimate xfs_bmap xfs_ncheck xfs_rtcp
    mkfs.ext4 mkfs.ext3 mkfs.ext2 mke2fs e2fsck fsck.ext4 tune2fs dumpe2fs debugfs resize2fs
    mkfs.btrfs btrfs btrfstune mkfs.f2fs fsck.f2fs mkfs.erofs mksquashfs mkfs.vfat
    dmsetup ip tc ss bridge ping nc getent iptables ip6tables kmod modprobe insmod rmmod lsmod depmod modinfo
    getfattr setfattr strace
""".split()  # noqa: SIM905  (a list this long reads best as words)

_INIT = """#!/usr/bin/python3 -ES
import sys
sys.path.insert(0, "/usr/lib/kernelfs")
from pytest_kernelfs.guest.init import main
main()
"""
_CODE_ROOT = "usr/lib/kernelfs"


def lifted_commands() -> frozenset[str]:
    """The programs that machines are given if the host has them."""
    return frozenset(_COMMANDS)


@cache
def guest_code_digest() -> str:
    """What changes whenever the code that runs inside machines does."""
    digest = hashlib.sha256()
    for name, path in guest_sources():
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build_userland(cache: Cache) -> Path:
    """The userland archive, from the cache or built.

    Raises: ProviderUnavailable if a required program is missing; InfrastructureError.
    """
    programs = _programs()
    return cache.entry("userland", _key(programs), lambda folder: _write(folder, programs)) / "userland.cpio"


def _programs() -> list[Path]:
    for tool in TOOLS:
        if tool.required:
            need(tool.command)
    found = (find(name) for name in _COMMANDS)
    return sorted(path for path in found if path is not None)


def _write(folder: Path, programs: list[Path]) -> None:
    libraries = shared_libraries([*programs, python.interpreter(), *python.extension_modules()])
    loader = next((path for path in libraries if path.name.startswith("ld")), None)
    with (folder / "userland.cpio").open("wb") as file:
        archive = CpioWriter(file)
        add_merged_layout(archive)
        _add_base(archive)
        for path in [*programs, *libraries]:
            add_with_symlinks(archive, path)
        for path in programs:
            put_on_path(archive, path)
        python.add_python(archive)
        if loader is not None:
            archive.file("etc/kernelfs/python", _how_to_start_python(loader, libraries).encode())
        _add_guest_code(archive)
        archive.finish()


def _how_to_start_python(loader: Path, libraries: list[Path]) -> str:
    """What starts this Python where it is not in its own root: see ``guest.image_boot``.

    A line each: the loader, the program, its home, the folders of all libraries.
    """
    folders = dict.fromkeys(str(Path(guest_path(path)).parent) for path in libraries)
    home = guest_path(Path(sys.base_prefix))
    return "\n".join([guest_path(loader), guest_path(python.interpreter()), home, ":".join(folders)]) + "\n"


def _add_base(archive: CpioWriter) -> None:
    for name in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/tmp", "etc"):
        archive.folder(name)
    # The kernel opens /dev/console for init before anything is mounted.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    archive.symlink("etc/mtab", "/proc/self/mounts")
    archive.symlink("var/run", "/run")
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    archive.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    archive.file("etc/shadow", b"root:*:0:0:99999:7:::\nnobody:*:0:0:99999:7:::\n", 0o640)
    archive.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")
    archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n")
    archive.file("etc/os-release", b'NAME="pytest-kernelfs guest"\nID=kernelfs\n')
    archive.file("init", _INIT.encode(), 0o755)


def _add_guest_code(archive: CpioWriter) -> None:
    for name in ("pytest_kernelfs/__init__.py", "execnet/__init__.py"):
        archive.file(f"{_CODE_ROOT}/{name}", b"")
    for name, path in guest_sources():
        archive.file(f"{_CODE_ROOT}/{name}c", python.byte_code(path, name))


def guest_sources() -> list[tuple[str, Path]]:
    """Our guest package and execnet's base module: (path below the code root, source)."""
    import pytest_kernelfs.guest as guest

    folder = Path(guest.__file__).parent
    execnet = find_spec("execnet")
    assert execnet is not None
    assert execnet.origin is not None
    files = [(f"pytest_kernelfs/guest/{path.name}", path) for path in sorted(folder.glob("*.py"))]
    return [*files, ("execnet/gateway_base.py", Path(execnet.origin).parent / "gateway_base.py")]


def _key(programs: list[Path]) -> str:
    """A hash over what goes in: our own code by content, the host's files by path, size and time.

    To ask for the libraries of a hundred programs takes longer than a whole test, so the loader's
    cache stands for them: it changes whenever a library is installed.
    """
    digest = hashlib.sha256(f"{_FORMAT} {_INIT}".encode())
    library = python.standard_library()
    loader = [path for path in (Path("/etc/ld.so.cache"), *python.shared_library()) if path.exists()]
    for path in [
        *programs,
        python.interpreter(),
        *loader,
        library,
        library / "os.py",
        *python.extension_modules(),
    ]:
        status = path.stat()
        digest.update(f"{path}\0{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    for name, path in guest_sources():
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]
