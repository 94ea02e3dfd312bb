"""What storage for containers is made of: subvolumes of btrfs, trees of files, and the room all takes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct

from pytest_kernelfs.guest import files, filesystems, space, syscalls
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

# linux/fs.h
_DISCARD = 0x1277

# linux/btrfs.h, linux/btrfs_tree.h
_SNAPSHOT = 0x50009401
_CREATE = 0x5000940E
_DESTROY = 0x5000940F
_SYNC = 0x9408
_SEARCH = 0xD0009411
_LOOK_UP_INODE = 0xD0009412
_FS_INFO = 0x8400941F
_PAGE = 4096
_VOLUME_NAME = struct.Struct("=q4088s")
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_ROOT_TREE = 1
_ROOT_ITEM = 132
_FIRST_INODE = 256
_MOST = (1 << 64) - 1


def remove_tree(path: str) -> None:
    """Remove a folder with all that is in it; one that is gone already is no error."""
    if os.path.lexists(path):
        shutil.rmtree(path)


def used(path: str) -> int:
    """The bytes that are used of the file system mounted at ``path``, when all is done that was begun.

    XFS gives the room of files that were removed back later, but before it freezes.
    """
    try:
        filesystems.freeze(path)
    except GuestError:
        syscalls.sync_file_system(path)  # it is frozen already, or cannot be
    else:
        filesystems.thaw(path)
    return int(space.used(path, sync=False)["used"])


def sync_all(paths: list[str]) -> None:
    """Write the dirty data of several file systems back."""
    for path in paths:
        syscalls.sync_file_system(path)


def discard(path: str, size: int) -> None:
    """Tell a device that nothing in it is needed any more: BLKDISCARD."""
    handle = os.open(path, os.O_WRONLY)
    try:
        fcntl.ioctl(handle, _DISCARD, struct.pack("=QQ", 0, size))
    except OSError as error:
        raise GuestError(f"discarding {path}: {error.strerror}") from None
    finally:
        os.close(handle)


def make_subvolume(path: str, contents: dict[str, str | bytes]) -> None:
    """Create a subvolume with files in it."""
    _volume_ioctl(_CREATE, path)
    files.make_tree(path, contents)


def snapshot_subvolume(source: str, path: str) -> None:
    """Create a subvolume that begins as a copy of another."""
    handle = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _volume_ioctl(_SNAPSHOT, path, handle)
    finally:
        os.close(handle)


def remove_subvolume(path: str, patience: float) -> None:
    """Remove a subvolume, and wait until the kernel has given its room back; one that is gone is no error."""
    if not os.path.isdir(path):
        return
    number = _subvolume_number(path)
    parent = os.path.dirname(path)
    _volume_ioctl(_DESTROY, path)
    _ioctl(parent, _SYNC)
    waiting = Patience(patience)
    while _is_there(parent, number):
        if not waiting.wait():
            raise GuestError(f"the kernel still has the subvolume {path} {patience:g} s after it was removed")
        _ioctl(parent, _SYNC)  # it also wakes the thread that does the work
    _ioctl(parent, _SYNC)


def btrfs_used(path: str) -> tuple[int, int]:
    """Bytes of the device that data takes, and metadata in all its copies; everything is written before."""
    _ioctl(path, _SYNC)
    answer = _ioctl(path, _FS_INFO, bytearray(1024))
    digits = answer[16:32].hex()
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    folder = f"/sys/fs/btrfs/{name}/allocation"
    taken = {kind: files.text(f"{folder}/{kind}/disk_used") for kind in os.listdir(folder)}
    counted = {kind: int(text) for kind, text in taken.items() if text}
    data = sum(counted.pop(kind, 0) for kind in ("data", "mixed"))
    return data, sum(counted.values())


def _subvolume_number(path: str) -> int:
    arguments = bytearray(_PAGE)
    struct.pack_into("=QQ", arguments, 0, 0, _FIRST_INODE)
    return int(struct.unpack_from("=Q", _ioctl(path, _LOOK_UP_INODE, arguments))[0])


def _is_there(path: str, number: int) -> bool:
    """Whether the file system still has the tree of that subvolume, which may be without a name by now."""
    arguments = bytearray(_PAGE)
    key = (_ROOT_TREE, number, number, 0, _MOST, 0, _MOST, _ROOT_ITEM, _ROOT_ITEM, 1, 0, 0, 0, 0, 0)
    _SEARCH_KEY.pack_into(arguments, 0, *key)
    return bool(_SEARCH_KEY.unpack_from(_ioctl(path, _SEARCH, arguments))[9])


def _volume_ioctl(request: int, path: str, source: int = 0) -> None:
    """``source`` is the open folder of the subvolume that is to be copied."""
    folder, name = os.path.split(path)
    argument = bytearray(_VOLUME_NAME.pack(source, os.fsencode(name)))
    try:
        _ioctl(folder, request, argument)
    except OSError as error:
        what = {_CREATE: "making", _SNAPSHOT: "making", _DESTROY: "removing"}[request]
        hint = " (other subvolumes lie in it)" if error.errno == errno.ENOTEMPTY else ""
        raise GuestError(f"{what} the subvolume {path}: {error.strerror}{hint}") from None


def _ioctl(path: str, request: int, argument: bytearray | None = None) -> bytearray:
    buffer = argument if argument is not None else bytearray(8)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, request, buffer)
    finally:
        os.close(handle)
    return buffer
