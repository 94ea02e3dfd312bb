"""The archive that every kernel shares: Python, shell, tools, their libraries, and the guest's own code."""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.initramfs import python
from pytest_kernelfs.machines.initramfs.cpio import CpioWriter
from pytest_kernelfs.machines.initramfs.lift import add_merged_layout, add_with_symlinks, shared_libraries
from pytest_kernelfs.tools import TOOLS, find, need

_FORMAT = "1"  # raised whenever the layout of the archive changes

# Lifted when the host has them; a command that is missing is missing in the guest, no more.
_COMMANDS = [
    "sh",
    "bash",
    "ls",
    "cat",
    "cp",
    "mv",
    "rm",
    "ln",
    "mkdir",
    "rmdir",
    "mkfifo",
    "mknod",
    "touch",
    "dd",
    "df",
    "du",
    "stat",
    "sync",
    "sleep",
    "echo",
    "printf",
    "head",
    "tail",
    "wc",
    "sort",
    "uniq",
    "cut",
    "tr",
    "tee",
    "true",
    "false",
    "test",
    "env",
    "id",
    "uname",
    "date",
    "seq",
    "truncate",
    "chmod",
    "chown",
    "readlink",
    "realpath",
    "timeout",
    "dirname",
    "basename",
    "mktemp",
    "nproc",
    "sha256sum",
    "md5sum",
    "cmp",
    "find",
    "xargs",
    "grep",
    "sed",
    "mawk",
    "awk",
    "tar",
    "ps",
    "kill",
    "mount",
    "umount",
    "findmnt",
    "lsblk",
    "losetup",
    "blkid",
    "blockdev",
    "fsfreeze",
    "fallocate",
    "flock",
    "unshare",
    "nsenter",
    "setpriv",
    "dmesg",
    "swapon",
    "swapoff",
    "mkswap",
    "wipefs",
    "chroot",
    "pivot_root",
    "hwclock",
    "taskset",
    "ionice",
    "fstrim",
    "prlimit",
    "setsid",
    "sysctl",
    "mkfs.xfs",
    "xfs_repair",
    "xfs_db",
    "xfs_io",
    "xfs_growfs",
    "xfs_quota",
    "xfs_info",
    "xfs_freeze",
    "xfs_logprint",
    "xfs_admin",
    "mkfs.ext4",
    "mkfs.ext3",
    "mkfs.ext2",
    "mke2fs",
    "e2fsck",
    "fsck.ext4",
    "tune2fs",
    "dumpe2fs",
    "debugfs",
    "resize2fs",
    "mkfs.btrfs",
    "btrfs",
    "btrfstune",
    "mkfs.f2fs",
    "fsck.f2fs",
    "mkfs.erofs",
    "mksquashfs",
    "mkfs.vfat",
    "dmsetup",
    "ip",
    "tc",
    "ss",
    "bridge",
    "kmod",
    "modprobe",
    "insmod",
    "rmmod",
    "lsmod",
    "depmod",
    "modinfo",
    "getfattr",
    "setfattr",
    "strace",
]

_INIT = """#!/usr/bin/python3 -ES
import sys
sys.path.insert(0, "/usr/lib/kernelfs")
from pytest_kernelfs.guest.init import main
main()
"""
_CODE_ROOT = "usr/lib/kernelfs"


def build_userland(cache: Cache) -> Path:
    """The userland archive, from the cache or built.

    Raises: ProviderUnavailable if a required program is missing; InfrastructureError.
    """
    programs = _programs()
    libraries = shared_libraries([*programs, python.interpreter(), *python.extension_modules()])
    key = _key([*programs, *libraries])
    return cache.entry("userland", key, lambda folder: _write(folder, programs, libraries)) / "userland.cpio"


def _programs() -> list[Path]:
    for tool in TOOLS:
        if tool.required:
            need(tool.command)
    found = (find(name) for name in _COMMANDS)
    return sorted(path for path in found if path is not None)


def _write(folder: Path, programs: list[Path], libraries: list[Path]) -> None:
    with (folder / "userland.cpio").open("wb") as file:
        archive = CpioWriter(file)
        add_merged_layout(archive)
        _add_base(archive)
        for path in [*programs, *libraries]:
            add_with_symlinks(archive, path)
        python.add_python(archive)
        _add_guest_code(archive)
        archive.finish()


def _add_base(archive: CpioWriter) -> None:
    for name in ("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/tmp", "etc"):
        archive.folder(name)
    # The kernel opens /dev/console for init before anything is mounted.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    archive.symlink("etc/mtab", "/proc/self/mounts")
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    archive.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    archive.file("etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n")
    archive.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files\n")
    archive.file("etc/os-release", b'NAME="pytest-kernelfs guest"\nID=kernelfs\n')
    archive.file("init", _INIT.encode(), 0o755)


def _add_guest_code(archive: CpioWriter) -> None:
    archive.file(f"{_CODE_ROOT}/pytest_kernelfs/__init__.py", b"")
    for name, content in guest_code():
        archive.file(f"{_CODE_ROOT}/{name}", content)


@cache
def guest_code() -> tuple[tuple[str, bytes], ...]:
    """Our guest package and execnet's base module, as byte code: (path below the code root, content)."""
    import execnet.gateway_base

    import pytest_kernelfs.guest as guest

    folder = Path(guest.__file__).parent
    files = [(f"pytest_kernelfs/guest/{path.name}", path) for path in sorted(folder.glob("*.py"))]
    files.append(("execnet/gateway_base.py", Path(inspect.getfile(execnet.gateway_base))))
    members = [(f"{name}c", python.byte_code(path, name)) for name, path in files]
    return (("execnet/__init__.py", b""), *members)


def _key(paths: list[Path]) -> str:
    """A hash over what goes in: host files by path, size and time (to read them all would take a second)."""
    digest = hashlib.sha256(f"{_FORMAT} {_INIT}".encode())
    program = python.interpreter()
    library = python.standard_library()
    for path in [*paths, program, library, library / "os.py"]:
        status = path.stat()
        digest.update(f"{path}\0{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    for name, content in guest_code():
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:32]
